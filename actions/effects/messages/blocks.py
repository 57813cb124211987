"""The Slack message of an action, in Block Kit: layout and escaping, within Slack's limits. It sends nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from slack_sdk.models.blocks import (
    ActionsBlock,
    Block,
    ButtonElement,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)

from spendbrake.actions.delivery.alert import LIFT, is_over, trouble_key
from spendbrake.actions.effects.messages.account import (
    Account,
    account_of,
    alerts_of,
    ends_at,
    limit_text,
    status_of,
    time_text,
    title_of,
)
from spendbrake.schemas.action import Action
from spendbrake.schemas.finding import BUDGET, BURN_RATE, COMMAND

ACK, APPROVE, DENY = "spendbrake.ack", "spendbrake.approve", "spendbrake.deny"
REAL, FALSE_ALARM = "spendbrake.real", "spendbrake.false_alarm"
"""`action_id` of the buttons. The value of the first is what the alert is about (`trouble_key`), of the next two the id
of the request that is to be decided, of the last two that of the finding that is judged."""
MAX_TEXT = 3_000
MAX_HEADER = 150
MAX_FIELD = 2_000
TOP = 7
SHORT = 12
"""Digits of an id that name an alert to people."""
LISTED = 12
"""Alerts that a message about several shows; 230 characters each fit the text of a section."""
MARKS = {"critical": ":red_circle:", "warning": ":large_orange_circle:", "info": ":large_blue_circle:"}


def blocks_of(action: Action) -> list[Block]:
    """Return the message: what happened, the money, who carries it, what was done, and the buttons."""
    money = account_of(action)
    mark = ":white_check_mark:" if is_over(action) else MARKS[action.severity]
    blocks: list[Block] = [
        HeaderBlock(text=PlainTextObject(text=_cut(title_of(action), MAX_HEADER), emoji=False)),
        SectionBlock(text=_markdown(f"{mark} ", action.reason)),
    ]
    several = alerts_of(action)
    if several:
        return [
            *blocks,
            SectionBlock(text=MarkdownTextObject(text=_alerts(several, int(action.evidence["n_alerts"])))),
            _id_of(action, money),
        ]
    fields = [MarkdownTextObject(text=f"*{mrkdwn(name, 100)}*\n{text}") for name, text in money.figures]
    if fields:
        blocks.append(SectionBlock(fields=fields))
    if money.contributors:
        blocks.append(SectionBlock(text=MarkdownTextObject(text=_contributors(money))))
    blocks.append(SectionBlock(text=MarkdownTextObject(text=_done(action))))
    blocks.append(_id_of(action, money))
    buttons = _buttons(action)
    if buttons:
        blocks.append(ActionsBlock(block_id=action.id, elements=buttons))
    return blocks


def _buttons(action: Action) -> list[ButtonElement]:
    over, detector = action.rung == LIFT or is_over(action), action.evidence.get("detector")
    if detector != COMMAND:
        ack = ButtonElement(text="Acknowledge", action_id=ACK, value=trouble_key(action), style="primary")
        return [*([] if over else [ack]), *_opinions(action)]
    if over or action.evidence.get("status") != "open":  # of a request; a grant and a refusal are decided
        return []
    request = str(action.evidence["request"])
    return [
        ButtonElement(text="Approve", action_id=APPROVE, value=request, style="primary"),
        ButtonElement(text="Deny", action_id=DENY, value=request, style="danger"),
    ]


def _opinions(action: Action) -> list[ButtonElement]:
    """Return the buttons that judge a detector, also when all is over: budgets and burn rates are no opinions."""
    if action.tier is not None or action.evidence.get("detector") in (None, BUDGET, BURN_RATE):
        return []
    if "judged" in action.evidence:
        return []
    return [
        ButtonElement(text="Real", action_id=REAL, value=action.finding),
        ButtonElement(text="False alarm", action_id=FALSE_ALARM, value=action.finding),
    ]


def judged(message: Sequence[Mapping[str, Any]], user: str, opinion: str) -> list[Mapping[str, Any]]:
    """Return the blocks of a message that was sent, with what a user has said in place of the buttons that judge."""
    said = "real" if opinion == "real" else "a false alarm"
    blocks: list[Mapping[str, Any]] = []
    for block in message:
        if block.get("type") == "actions":
            left = [each for each in block.get("elements", ()) if each.get("action_id") not in (REAL, FALSE_ALARM)]
            blocks += [{**block, "elements": left}] if left else []
        else:
            blocks.append(block)
    note = ContextBlock(elements=[MarkdownTextObject(text=f"<@{user}> says: {said}")])
    return [*blocks, note.to_dict()]


def reply_of(action: Action) -> list[Block]:
    """Return the message that later news of an alert are: in its thread, where the figures stand above already."""
    mark = ":white_check_mark:" if is_over(action) else MARKS[action.severity]
    return [
        SectionBlock(text=_markdown(f"{mark} ", f"{status_of(action)}: {action.reason}")),
        SectionBlock(text=MarkdownTextObject(text=_done(action))),
        _id_of(action, account_of(action)),
    ]


def mrkdwn(text: str, limit: int) -> str:
    """Return text with Slack's three special characters escaped, cut to `limit` without breaking an escape.

    Examples:
        >>> mrkdwn("<!channel> R&D", 100), mrkdwn("a&b&c", 9)
        ('&lt;!channel&gt; R&amp;D', 'a&amp;b…')
    """
    escapes = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    parts = [escapes.get(char, char) for char in text]
    if sum(map(len, parts)) <= limit:
        return "".join(parts)
    kept, size = [], 1
    for part in parts:
        if size + len(part) > limit:
            break
        kept.append(part)
        size += len(part)
    return "".join(kept) + "…"


def _contributors(money: Account) -> str:
    lines = ["*Who carries it, in the last 15 minutes*"]
    for each in money.contributors[:TOP]:
        lines.append(f"• {mrkdwn(each.kind, 20)} `{mrkdwn(each.name, 256)}`: {each.text}")
    return "\n".join(lines)


def _alerts(rows: Sequence[Mapping[str, Any]], number: int) -> str:
    lines = []
    for row in rows[:LISTED]:
        mark = ":white_check_mark:" if row["over"] else MARKS[row["severity"]]
        told = f"{mrkdwn(str(row['name']), 80)}: {mrkdwn(str(row['reason']), 110)}"
        lines.append(f"{mark} {told} `{str(row['id'])[:SHORT]}`")
    if number > LISTED:
        lines.append(f"and {number - LISTED} more")
    return "\n".join(lines)


def _done(action: Action) -> str:
    end = ends_at(action)
    until = "" if end is None else f" Until {_date(end)}, or until it is resolved."
    shadow = " (Shadow: nothing has been enforced.)" if action.mode == "shadow" else ""
    return f"*Action*\n{mrkdwn(limit_text(action), MAX_FIELD)}{until}{shadow}"


def _id_of(action: Action, money: Account) -> ContextBlock:
    return ContextBlock(elements=[MarkdownTextObject(text=_small_print(action, money))])


def _small_print(action: Action, money: Account) -> str:
    if alerts_of(action):
        return f"message {action.id} · acknowledge one with `spendbrake ack ID`"
    parts = [f"policy {action.policy}, rung {action.rung}"]
    parts += [f"tier {action.tier} of {action.period}"] if action.tier is not None else []
    parts += [f"node {money.node}", f"action {action.id}"]
    if "judged" in action.evidence:
        said = "real" if action.evidence["judged"] == "real" else "a false alarm"
        parts.append(f"{action.evidence.get('judged_by')} says: {said}")
    return mrkdwn(" · ".join(parts), MAX_FIELD)


def _date(at: float) -> str:
    """Return a time that Slack shows in the reader's own zone."""
    return f"<!date^{int(at)}^{{date_short_pretty}} {{time}}|{time_text(at)}>"


def _markdown(prefix: str, text: str) -> MarkdownTextObject:
    return MarkdownTextObject(text=prefix + mrkdwn(text, MAX_TEXT - len(prefix)))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
