"""What all parts of the policy file share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\s\x00-\x1f|@]+$")]


class Part(BaseModel):
    """Every part of the file refuses names it does not know: a misspelt cap is no cap."""

    model_config = ConfigDict(extra="forbid", frozen=True)
