"""Judging what a segment found: tiers, buckets, facts, dues in; findings and actions out, in log order.

Nothing is judged up to the offset that a team's head row was stored at: it was judged before a crash.
"""

from collections.abc import Callable

import numpy as np

from spendbrake.detectors.panel import TeamPanel
from spendbrake.schemas.decision import Stamp
from spendbrake.schemas.finding import Finding
from spendbrake.schemas.reading import BucketReading, Context, NewSeries, Reading, SessionReading
from spendbrake.schemas.standing import Standing
from spendbrake.schemas.wire.envelope import decode_usage
from spendbrake.streams.engine.chains import publish_chains
from spendbrake.streams.engine.emit import Emitter
from spendbrake.streams.engine.judge.evidence import approved, context_of, contributors, standing_of
from spendbrake.streams.engine.judge.tiering import Tiering, finding_of
from spendbrake.streams.engine.rules.book import Rules
from spendbrake.streams.engine.rules.routes import Routes
from spendbrake.streams.engine.state.partition import Head, PartitionState
from spendbrake.streams.engine.state.sessions import Passed
from spendbrake.streams.engine.state.teams import FINE_S, TOKENS

DAY_S = 86_400.0


class Judge:
    """Judges one segment of one partition."""

    def __init__(self, state: PartitionState, rules: Rules, emit: Emitter, routes: Routes) -> None:
        self.state, self.rules, self.emit, self.routes = state, rules, emit, routes
        self.periods = state.periods
        self.tiering = Tiering(state, rules)

    # --- the clock -------------------------------------------------------------------------------

    def roll(self, now: float, offset: int) -> None:
        """Begin local days and months that the clock has reached; set tiers of nodes that are new, or all anew."""
        changed = self.state.rules != self.rules.version
        for row, crossings, month in self.tiering.roll(now, self._judgeable(offset)):
            self._crossings(row, crossings, month, now, offset)
        if changed:
            for team in range(len(self.state.teams)):
                self.tick(team, now, offset)
        publish_chains(self.state, self.rules, self.emit, now)

    def tick(self, team: int, now: float, offset: int) -> bool:
        """Let dwells, ends of limits and quiet incidents of a team come due; tell whether it was judged."""
        if offset <= self.state.teams.judged[team]:
            self.state.teams.due[team] = np.nextafter(now, np.inf)
            return False
        head = self._head(team)
        panel = head.panel
        if panel is not None:
            self._findings(team, panel.tick(now, offset), now, offset)
        actions = self.rules.ladder.tick(head.ladder, now, self._stamp(offset), self._standing_by_id(team, now))
        for action in actions:
            self.emit.action(action, self.state.number)
        self._changed(team, now)
        return True

    # --- readings --------------------------------------------------------------------------------

    def close(self, team: int, bucket: int, now: float, offset: int) -> None:
        """Close a 10 s bucket: show it to the detectors and find the team's next open one."""
        teams = self.state.teams
        if offset > teams.judged[team]:
            self._read(team, self._bucket(team, bucket, now, offset), now, offset)
            teams.closed[team] = bucket
        teams.open[team] = teams.next_open(team, bucket)

    def step(self, row: int, total: int, now: float, offset: int) -> int | None:
        """Show a series to the detectors that has passed the next amount while it is new."""
        table = self.state.series
        name = table.names[row]
        if total < table.next_step[row]:
            return None
        table.pass_step(row, total)
        age = now - float(table.first_at[row])
        if name.kind in ("team", "node", "calendar") or age > DAY_S or offset <= self.state.teams.judged[name.team]:
            return None
        own = int(self.state.teams.series[name.team])
        reading = NewSeries(
            team=self.state.teams.names[name.team],
            kind=name.kind,
            name=name.name,
            now=now,
            offset=offset,
            at=float(table.first_at[row]),
            age_s=max(age, 0.0),
            team_age_s=max(now - float(table.first_at[own]), 0.0),
            cost=total,
            calls=int(table.hours.fields["calls"][row].sum()),
            team_cost_24h=int(self.state.cost_24h[name.team]),
            approved=approved(self.rules, self.state.teams.names[name.team], name),
        )
        self._read(name.team, reading, now, offset)
        return name.team

    def session(self, passed: Passed, route: int, place: int, now: float, offset: int) -> None:
        """Show a session to the detectors that has passed its mark; `place` is its record's in the batch."""
        if offset <= self.state.teams.judged[passed.team]:
            return
        batch, known = self.emit.batch, self.routes.routes[route]
        event = decode_usage(batch.values[place], batch.headers[place], self.routes.schemas)
        reading = SessionReading(
            team=known.team_id,
            session=event.session_id or "",
            key=known.key,
            model=known.model,
            now=now,
            offset=offset,
            started_at=passed.began,
            cost=passed.cost,
            calls=passed.calls,
            mark=passed.mark,
            typical=int(self.state.sessions.typical[passed.team]),
            n_sessions=int(self.state.sessions.behind[passed.team]),
        )
        self._read(passed.team, reading, now, offset)

    # --- budgets ---------------------------------------------------------------------------------

    def cross(self, row: int, total: int, now: float, offset: int, *, daily: bool) -> int | None:
        """Judge a node whose month or day has come to `total`."""
        table = self.state.series
        team = table.names[row].team
        threshold = table.next_day[row] if daily else table.next_month[row]
        if total < threshold or offset <= self.state.teams.judged[team]:
            return None
        month = int(table.month[row]) if daily else total
        crossings = self.tiering.advance(row, month, total if daily else None)
        self._crossings(row, crossings, month, now, offset)
        return team

    def fallen(self, rows: list[int], now: float, offset: int) -> None:
        """Judge nodes whose money a correction has lowered."""
        for row in rows:
            if self.state.series.node[row] and offset > self.state.teams.judged[self.state.series.names[row].team]:
                month = int(self.state.series.month[row])
                self._crossings(row, self.tiering.advance(row, month, None), month, now, offset)

    def ended(self, rows: list[int], now: float, offset: int) -> None:
        """Judge nodes that late money has reached in the month before."""
        for row in rows:
            if self.state.series.node[row] and offset > self.state.teams.judged[self.state.series.names[row].team]:
                crossings, total = self.tiering.advance_ended(row)
                self._crossings(row, crossings, total, now, offset)

    def _crossings(self, row: int, crossings: list, month: int, now: float, offset: int) -> None:  # type: ignore[type-arg]
        if not crossings:
            return
        name = self.state.series.names[row]
        standing = standing_of(self.state, self.rules, row, month, now)
        for crossing in crossings:
            found = finding_of(crossing, standing, contributors(self.state, name.team))
            self._finding(name.team, found, standing, offset)
        self._changed(name.team, now)

    # --- findings --------------------------------------------------------------------------------

    def _read(self, team: int, reading: Reading, now: float, offset: int) -> None:
        panel = self._panel(team)
        findings = panel.read(reading, self._context(team, now))
        self._findings(team, findings, now, offset)
        self._changed(team, now)

    def _findings(self, team: int, findings: list[Finding], now: float, offset: int) -> None:
        for finding in findings:
            own = int(self.state.teams.series[team])
            row = next((r for r in self.state.series.of_team[team] if self.state.series.node[r] == finding.node), own)
            standing = standing_of(self.state, self.rules, row, int(self.state.series.month[row]), now)
            self._finding(team, finding, standing, offset)

    def _finding(self, team: int, finding: Finding, standing: Standing, offset: int) -> None:
        self.emit.finding(finding)
        head = self._head(team)
        for action in self.rules.ladder.answer(head.ladder, finding, standing, self._stamp(offset)):
            self.emit.action(action, self.state.number)

    def _bucket(self, team: int, bucket: int, now: float, offset: int) -> BucketReading:
        teams = self.state.teams
        fields = teams.fine.fields
        cell = bucket % teams.fine.cells
        before = int(teams.closed[team])
        return BucketReading(
            team=teams.names[team],
            at=float(bucket * FINE_S),
            width_s=float(FINE_S),
            now=now,
            offset=offset,
            cost=int(fields["cost"][team, cell]),
            calls=int(fields["calls"][team, cell]),
            errors=int(fields["errors"][team, cell]),
            empty_before=bucket - before - 1 if before >= 0 else 0,
            **{name: int(fields[name][team, cell]) for name in TOKENS},
        )

    # --- heads -----------------------------------------------------------------------------------

    def _head(self, team: int) -> Head:
        return self.state.heads[team]

    def _panel(self, team: int) -> TeamPanel:
        head = self._head(team)
        if head.panel is None:
            name = self.state.teams.names[team]
            saved = head.saved_panel
            head.panel = self.rules.panel.team(name) if saved is None else self.rules.panel.load(name, saved)
            head.saved_panel = None
        return head.panel

    def _changed(self, team: int, now: float) -> None:
        """Note that the head must be stored, and when it wants the clock next: never at the same moment again."""
        head = self._head(team)
        self.state.dirty_heads.add(team)
        wants = [head.ladder.next_due(), head.panel.wants_until() if head.panel is not None else None]
        due = min((at for at in wants if at is not None), default=float("inf"))
        self.state.teams.due[team] = due if due > now else float(np.nextafter(now, np.inf))

    def _stamp(self, offset: int) -> Stamp:
        return Stamp(epoch=self.state.epoch, offset=offset)

    def _judgeable(self, offset: int) -> Callable[[int], bool]:
        judged = self.state.teams.judged
        return lambda team: offset > judged[team]

    def _context(self, team: int, now: float) -> Callable[[], Context]:
        return lambda: context_of(self.state, team, now)

    def _standing_by_id(self, team: int, now: float) -> Callable[[str], Standing]:
        def find(node: str) -> Standing:
            own = int(self.state.teams.series[team])
            row = next((r for r in self.state.series.of_team[team] if self.state.series.node[r] == node), own)
            return standing_of(self.state, self.rules, row, int(self.state.series.month[row]), now)

        return find
