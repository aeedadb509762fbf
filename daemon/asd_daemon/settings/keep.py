"""What is kept on disk: the keys of the section `keep`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from asd_daemon.settings.sections import Section


class KeepSettings(Section):
    """What is kept on disk, in the state folder."""

    store_sound: bool = Field(
        True, description="false: no sound that was heard is ever written to disk, whatever else is configured"
    )
    enrolment_sound: bool = Field(
        True,
        description="keep the windows a machine was learned from, up to 160 as FLAC of about 200 kB each, so that after a new"
        " version it can be learned anew without being heard again",
    )
    clips: Literal["alerts", "none"] = Field("alerts", description="keep the sound around alerts, or none")
    clip_before_s: float = Field(
        30.0, ge=0, le=300, description="seconds of sound before an alert opened; held in memory at 32 kB a second"
    )
    clip_after_s: float = Field(10.0, ge=0, le=300, description="seconds of sound after it")
    normal_clips: int = Field(
        24,
        ge=0,
        le=1000,
        description="so many normal windows of each machine are kept with the clips to compare an alert with: one an hour until they are"
        " there, then four a day",
    )
    clips_mb: float = Field(
        500.0, gt=0, le=1e6, description="megabytes of clips, all machines together; the oldest go first"
    )
    clips_days: float = Field(30.0, gt=0, le=36_500, description="days after which a clip is deleted")
    scores_every_s: float = Field(
        1800.0, ge=1, le=86_400, description="seconds from one writing of scores to the next; a power cut costs so many"
    )
    scores_days: float = Field(90.0, gt=0, le=36_500, description="days after which a score is deleted")
    alerts_waiting: int = Field(
        10_000,
        ge=10,
        le=1_000_000,
        description="so many messages wait for the broker; then the oldest updates go first",
    )

    @property
    def keeps_clips(self) -> bool:
        """Whether sound around alerts is kept."""
        return self.store_sound and self.clips == "alerts"

    @property
    def keeps_enrolment_sound(self) -> bool:
        """Whether the windows of an enrolment are kept."""
        return self.store_sound and self.enrolment_sound
