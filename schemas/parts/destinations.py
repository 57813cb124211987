"""Where notifications go. Secrets are named, never written: `..._env` is a variable of the worker's environment."""

from string import Template
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from spendbrake.schemas.parts.delivery import Grouping
from spendbrake.schemas.parts.part import Part

Address = Annotated[str, Field(max_length=320, pattern=r"^[^@\s<>,;]+@[^@\s<>,;]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
TICKET_FIELDS = frozenset(
    {"status", "severity", "node", "name", "team", "policy", "tier", "period", "reason", "action"}
)
"""What a ticket's templates may name, as `$node` or `${node}`."""


class Grouped(Part):
    """A destination whose alerts may be told together; the other systems group by themselves."""

    grouping: Grouping | None = Field(None, description="Each alert is told at once, and once, when absent.")


class SlackDestination(Grouped):
    type: Literal["slack"]
    channel: str
    token_env: Variable = Field("SLACK_BOT_TOKEN", description="Environment variable that holds the bot token.")
    base_url: str = "https://slack.com/api/"


class WebhookDestination(Grouped):
    type: Literal["webhook"]
    url: str
    secret_env: Variable = Field(
        "SPENDBRAKE_WEBHOOK_SECRET",
        description="Environment variable with the secret, `whsec_` (or an ed25519 key, `whsk_`); several by comma: "
        "each signs, so that the receiver may go over from one to the next.",
    )


class PagerDutyDestination(Part):
    type: Literal["pagerduty"]
    routing_key_env: Variable = Field(
        "PAGERDUTY_ROUTING_KEY", description="Environment variable with the integration key of a service (Events v2)."
    )
    base_url: str = "https://events.pagerduty.com"


class EmailDestination(Grouped):
    type: Literal["email"]
    host: str = Field(description="SMTP server.")
    port: int = Field(587, ge=1, le=65_535)
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    sender: Address
    to: tuple[Address, ...] = Field((), description="The contacts of the node when empty.")
    username: str | None = None
    password_env: Variable = Field("SMTP_PASSWORD", description="Environment variable, where there is a username.")


class AlertmanagerDestination(Part):
    type: Literal["alertmanager"]
    url: str = Field(description="Base URL; `/api/v2/alerts` is added.")
    token_env: Variable | None = Field(None, description="Environment variable with a bearer token.")
    labels: dict[Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], str] = Field(
        default_factory=dict, description="Added to every alert."
    )


class TicketDestination(Part):
    type: Literal["ticket"]
    system: Literal["jira", "github", "gitea"]
    project: str = Field(min_length=1, description="Key of the Jira project, or `owner/repository`.")
    url: str = Field(
        "https://api.github.com",
        description="Base URL of the API; for Jira that of the site, for Gitea that with `/api/v1`.",
    )
    token_env: Variable = Field("TICKET_TOKEN", description="Environment variable with the API token.")
    username: str | None = Field(None, description="For Jira Cloud: the e-mail address that owns the token.")
    issue_type: str = Field("Task", description="For Jira.")
    labels: tuple[Annotated[str, Field(pattern=r"^\S{1,50}$")], ...] = ()
    title: str = "$status: $name: $reason"
    body: str = "$reason"
    close: bool = Field(False, description="Whether the ticket is closed when the alert is over.")

    @field_validator("title", "body")
    @classmethod
    def _known_fields(cls, text: str) -> str:
        template = Template(text)
        if not template.is_valid():
            raise ValueError("a $ stands before a name, or twice for itself")
        if unknown := sorted(set(template.get_identifiers()) - TICKET_FIELDS):
            raise ValueError(f"no field ${unknown[0]}; there are {', '.join(sorted(TICKET_FIELDS))}")
        return text

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.system != "jira" and self.project.count("/") != 1:
            raise ValueError("a project of GitHub or Gitea is `owner/repository`")
        if self.system != "github" and self.url == "https://api.github.com":
            raise ValueError(f"a destination of system {self.system} needs the url of its site")
        return self


Destination = Annotated[
    SlackDestination
    | WebhookDestination
    | PagerDutyDestination
    | EmailDestination
    | AlertmanagerDestination
    | TicketDestination,
    Field(discriminator="type"),
]
