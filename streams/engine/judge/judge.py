"""Judging what a segment found: tiers, buckets, facts, dues in; findings and actions out, in log order.

Nothing is judged up to the offset that a team's head row was stored at: it was judged before a crash.
"""

import math
from collections.abc import Callable, Iterator

from spendbrake.detectors.memory.votes import Vote
from spendbrake.detectors.panel import TeamPanel
from spendbrake.schemas.command import Command
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.reading import BucketReading, Call, NewSeries, Reading, SessionReading
from spendbrake.schemas.standing import Standing
from spendbrake.streams.budgets.tiers import Crossing
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.judge.evidence import (
    approved,
    bucket_of,
    context_of,
    contributors,
    sample_of,
    standing_of,
)
from spendbrake.streams.engine.judge.moment import Moment
from spendbrake.streams.engine.judge.tiering import Tiering, finding_of
from spendbrake.streams.engine.moves import leave, moved
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import PartitionState
from spendbrake.streams.engine.state.sessions import Passed

DAY_S = 86_400.0


class Judge:
    """Judges one segment of one partition."""

    def __init__(self, state: PartitionState, rules: Rules, emit: Emitter, routes: Routes) -> None:
        self.state, self.rules, self.emit, self.routes = state, rules, emit, routes
        self.tiering = Tiering(state, rules)

    def judges(self, team: int, offset: int) -> bool:
        """Tell whether a record has not been judged for a team before a crash."""
        return offset > int(self.state.teams.judged[team])

    # --- the clock -------------------------------------------------------------------------------

    def change(self, moment: Moment) -> Iterator[None]:
        """Put the rules at hand into force in place of those before; yields at every node and team."""
        before = self.state.numbered_by
        if before is not None:
            self._move(before, moment)
        for row, crossings, month in self.tiering.change(moment.now, self._judgeable(moment.offset)):
            self._crossings(row, crossings, month, moment)
            yield
        if before is None or before.file.detection != self.rules.file.detection:
            for team in list(self.state.heads):
                if self.judges(team, moment.offset):
                    self._retune(team)
                    yield
        for team in range(len(self.state.teams)):
            if before is None or before.file.policies != self.rules.file.policies:
                self._adopt(team, moment)
            self.tick(team, moment)
            yield

    def _move(self, before: Rules, moment: Moment) -> None:
        """Split the totals of teams that hang elsewhere by the rules at hand."""
        teams = [each for each in moved(self.state, before, self.rules) if self.judges(each[0], moment.offset)]
        if teams:
            told = leave(self.state, before, self.rules, teams, self._stamp(moment), self.emit.secret)
            self.emit.outcome.records += told

    def roll(self, moment: Moment) -> Iterator[None]:
        """Begin local days and months that the clock has reached, yielding at every node; set tiers of new nodes."""
        for row, crossings, month in self.tiering.roll(moment.now, self._judgeable(moment.offset)):
            self._crossings(row, crossings, month, moment)
            yield

    def expire(self, until: float, moment: Moment) -> None:
        """End the grants whose time is over at `until`."""
        for team in sorted(self.state.granted):
            if self.judges(team, moment.offset):
                for row, crossings, month in self.tiering.expire(team, until):
                    self._crossings(row, crossings, month, moment)
                    self.state.dirty_heads.add(team)
                if not self.state.heads[team].granted:
                    self.state.granted.discard(team)

    def _adopt(self, team: int, moment: Moment) -> None:
        """Put tiers that stand before policies that were not there when they were crossed: they are told of once."""
        table, head, stamp = self.state.series, self.state.heads[team], self._stamp(moment)
        judged = self.judges(team, moment.offset)
        for row in [row for row in table.of_team[team] if judged and table.node[row] in head.tiers]:
            month = int(table.month[row])
            for crossing in self.tiering.tiers(row).standing(month, self.tiering.day(row)):
                standing = standing_of(self.state, self.rules, row, moment, month)
                finding = finding_of(crossing, standing, contributors(self.state, team, moment))
                self.emit.actions(self.rules.ladder.adopt(head.ladder, finding, standing, stamp), self.state.number)

    def tick(self, team: int, moment: Moment) -> bool:
        """Let dwells, ends of limits and quiet incidents of a team come due; tell whether it was judged."""
        if not self.judges(team, moment.offset):
            return False
        head = self.state.heads[team]
        if head.has_panel:
            self._findings(team, self._panel(team).tick(moment.now, moment.offset), moment)
        stamp, standing = self._stamp(moment), self._standing_by_id(team, moment)
        actions = self.rules.ladder.tick(head.ladder, moment.now, stamp, standing)
        self.emit.actions(actions, self.state.number)
        self._changed(team, moment.now)
        return True

    # --- readings --------------------------------------------------------------------------------

    def close(self, team: int, bucket: int, values: dict[str, int], moment: Moment) -> None:
        """Show a closed 10 s bucket to the detectors."""
        if values["calls"] and self.judges(team, moment.offset):
            self._read(team, self._bucket(team, bucket, values, moment, sample_of(self.state, team, bucket)), moment)

    def late(self, team: int, bucket: int, more: dict[str, int], moment: Moment) -> None:
        """Show a bucket again to which late money has been added: `more` came since it was stored in the ring."""
        if self.judges(team, moment.offset):
            held = self.state.teams.fine.bucket(team, bucket)
            values = {name: held[name] + amount for name, amount in more.items()}
            self._read(team, self._bucket(team, bucket, values, moment), moment)

    def refused(self, row: int) -> bool:
        """Tell whether a series is a model that its team may not use: told whatever it costs."""
        name = self.state.series.names[row]
        return approved(self.rules, self.state.teams.names[name.team], name.kind, name.name) is False

    def new(self, row: int, total: int, moment: Moment) -> bool:
        """Show a series to the detectors that has passed the next amount while it is new; tell whether it was."""
        name, age = (table := self.state.series).names[row], moment.now - float(table.first_at[row])
        table.pass_step(row, total)
        if not table.shown[row] or age > DAY_S or not self.judges(name.team, moment.offset):
            return False
        team, own = self.state.teams.names[name.team], int(self.state.teams.series[name.team])
        reading = NewSeries(
            team=team,
            kind=name.kind,  # type: ignore[arg-type]
            name=name.name,
            now=moment.now,
            offset=moment.offset,
            at=float(table.first_at[row]),
            age_s=max(age, 0.0),
            team_age_s=max(moment.now - float(table.first_at[own]), 0.0),
            cost=total,
            calls=moment.calls(row),
            team_cost_24h=int(self.state.cost_24h[name.team]),
            approved=approved(self.rules, team, name.kind, name.name),
        )
        self._read(name.team, reading, moment)
        return True

    def session(self, passed: Passed, route: int, place: int, moment: Moment) -> bool:
        """Show a session that has passed its mark; `place` is its record's in the batch. Tell whether it was shown."""
        if not self.judges(passed.team, moment.offset):
            return False
        known = self.routes.routes[route]
        reading = SessionReading(
            team=known.team_id,
            session=self.routes.session(self.emit.batch, place),
            key=known.key,
            model=known.model,
            now=moment.now,
            offset=moment.offset,
            started_at=passed.began,
            cost=passed.cost,
            calls=passed.calls,
            mark=passed.mark,
            typical=int(self.state.sessions.typical[passed.team]),
            n_sessions=int(self.state.sessions.behind[passed.team]),
            fingerprint=passed.session,
        )
        self._read(passed.team, reading, moment)
        return True

    def name(self, team: int, session: int, place: int, moment: Moment) -> None:
        """Tell the detectors of a team what a session is called, by a record of it."""
        if self.judges(team, moment.offset) and self.state.name(team, session, moment.now):
            self._panel(team).name(session, self.routes.session(self.emit.batch, place))
            self._changed(team, moment.now)

    # --- budgets ---------------------------------------------------------------------------------

    def cross(self, row: int, month: int, day: int, moment: Moment) -> None:
        """Judge a node whose month and day have come to these totals."""
        self._crossings(row, self.tiering.advance(row, month, day), month, moment)

    def measure(self, row: int, moment: Moment) -> None:
        """Judge a node whose limits have changed."""
        month, day = int(self.state.series.month[row]), self.tiering.day(row)
        self._crossings(row, self.tiering.advance(row, month, day), month, moment)
        self._changed(self.state.series.names[row].team, moment.now)

    def exempt(self, team: int, command: Command, until: float, why: str, moment: Moment) -> None:
        """Let a policy limit a node or a key no more until then; 0 ends what the request was granted."""
        ladder = self.state.heads[team].ladder
        actions = self.rules.ladder.exempt(ladder, command, until, moment.now, self._stamp(moment), why)
        self.emit.actions(actions, self.state.number)
        self._changed(team, moment.now)

    def tell(self, team: int, finding: Finding, moment: Moment) -> None:
        """Publish a finding of what people did, and what follows from it."""
        self._finding(team, finding, self._standing_by_id(team, moment)(finding.node), moment)
        self._changed(team, moment.now)

    def voted(self, team: int, incident: str, vote: Vote, finding: Finding, moment: Moment) -> None:
        """Take somebody's word for an incident, and publish that it was given: no policy answers it."""
        self.state.heads[team].votes.take(incident, vote)
        self.state.voted.add(team)
        self.emit.finding(finding)
        self._changed(team, moment.now)

    def ended(self, row: int, period: str, total: int, moment: Moment) -> None:
        """Judge a node whose month before late money has brought to `total`."""
        self._crossings(row, self.tiering.tiers(row).advance_ended(period, total), total, moment)

    def _crossings(self, row: int, crossings: list[Crossing], month: int, moment: Moment) -> None:
        if not crossings:
            return
        team = self.state.series.names[row].team
        standing = standing_of(self.state, self.rules, row, moment, month)
        top = contributors(self.state, team, moment)
        for crossing in crossings:
            self._finding(team, finding_of(crossing, standing, top), standing, moment)
        self._changed(team, moment.now)

    # --- findings --------------------------------------------------------------------------------

    def _read(self, team: int, reading: Reading, moment: Moment) -> None:
        panel = self._panel(team)
        self._findings(team, panel.read(reading, lambda: context_of(self.state, self.rules, team, moment)), moment)
        if nameless := panel.nameless():
            self.state.ask(team, nameless, moment.now)
        self._changed(team, moment.now)

    def _findings(self, team: int, findings: list[Finding], moment: Moment) -> None:
        standing = self._standing_by_id(team, moment)
        for finding in findings:
            self._finding(team, finding, standing(finding.node), moment)

    def _finding(self, team: int, finding: Finding, standing: Standing, moment: Moment) -> None:
        self.emit.finding(finding)
        ladder, stamp = self.state.heads[team].ladder, self._stamp(moment)
        self.emit.actions(self.rules.ladder.answer(ladder, finding, standing, stamp), self.state.number)

    def _bucket(
        self, team: int, bucket: int, values: dict[str, int], moment: Moment, sample: tuple[Call, ...] = ()
    ) -> BucketReading:
        teams = self.state.teams
        before, teams.closed[team] = int(teams.closed[team]), max(int(teams.closed[team]), bucket)
        return bucket_of(self.state, team, bucket, before, values, moment, sample)

    # --- heads -----------------------------------------------------------------------------------

    def _panel(self, team: int) -> TeamPanel:
        head = self.state.heads[team]
        if head.panel is None:
            name, saved, build = self.state.teams.names[team], head.saved_panel, self.rules.panel
            kept = head.votes, self.state.epoch
            head.panel = build.team(name, *kept) if saved is None else build.load(name, saved, *kept)
            head.saved_panel = None
        return head.panel

    def _retune(self, team: int) -> None:
        """Take the detectors of a team over into the rules at hand, as a restart would."""
        head = self.state.heads[team]
        if head.panel is not None:
            head.saved_panel, head.panel = head.panel.dump(), None
        if head.saved_panel is not None:
            head.saved_panel = self._panel(team).dump()
            head.panel = None
            self.state.dirty_heads.add(team)

    def _changed(self, team: int, now: float) -> None:
        """Note that the head must be stored, and when it wants the clock next: never at the same moment again."""
        head = self.state.heads[team]
        self.state.dirty_heads.add(team)
        wants = (head.ladder.next_due(), self._panel(team).wants_until() if head.has_panel else None)
        due = min([at for at in wants if at is not None] or [math.inf])
        self.state.teams.due[team] = due if due > now else math.nextafter(now, math.inf)

    def _stamp(self, moment: Moment) -> Stamp:
        return Stamp(epoch=self.state.epoch, offset=moment.offset)

    def _judgeable(self, offset: int) -> Callable[[int], bool]:
        return lambda team: self.judges(team, offset)

    def _standing_by_id(self, team: int, moment: Moment) -> Callable[[str], Standing]:
        def find(node: str) -> Standing:
            table, own = self.state.series, int(self.state.teams.series[team])
            row = next((r for r in table.of_team[team] if table.node[r] == node), own)
            return standing_of(self.state, self.rules, row, moment)

        return find
