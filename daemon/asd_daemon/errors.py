"""Every failure that asd-edge raises on purpose.

    AsdError
    ├── UsageError              exit 2   a wrong word on the command line
    ├── SettingsError           exit 2   configuration or recipe: file, key, value, what to do
    ├── RecordingError          exit 2   a sound file that can't be read or holds no usable sound
    ├── DataSetError            exit 2   a folder that is no data set, or one with nothing to learn from
    ├── StageError              exit 2   a stage of a run that is missing or does not fit its recipe
    ├── FetchError              exit 3   the archive of the public data sets can't be reached, or sends something else
    ├── CannotStartError        exit 3
    │   ├── BundleError                  missing, broken, too new or tampered bundle
    │   │   ├── EnrolmentError           what was learned on this box can't be read, or can't be judged by
    │   │   └── RolloutError             what a server offers of bundles must not be used, or can't be had
    │   ├── UnknownMachineError          the bundle does not know the machine
    │   ├── SourceError                  microphone, command or other source of sound
    │   └── BrokerError                  MQTT broker refuses (rights, certificate)
    ├── CannotJudgeError        exit 3   a machine that can't be judged at present, while its neighbours can
    └── ExportError             exit 1   ONNX differs from torch, or a budget is missed

The commands print `error: <message>` on one line and leave with `exit_code`; a traceback is a defect of ours.
"""

from __future__ import annotations

import tokenize
import zipfile

UNREADABLE_ARRAY = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, tokenize.TokenError, SyntaxError)
"""What `numpy.load` raises, in one version or another, on a file that is no array or no longer one."""


class AsdError(Exception):
    """Base of all. The message says what, which value, where, and what to do."""

    exit_code = 1


class UsageError(AsdError):
    """A wrong word on the command line."""

    exit_code = 2


class SettingsError(AsdError):
    """Configuration or recipe; names the file, the key and the value."""

    exit_code = 2


class RecordingError(AsdError):
    """A sound file that can't be read, is empty, or holds samples that are not finite."""

    exit_code = 2


class DataSetError(AsdError):
    """A folder that is no data set, or has nothing to learn from."""

    exit_code = 2


class StageError(AsdError):
    """A stage of a run that is missing, broken, or made by another recipe."""

    exit_code = 2


class FetchError(AsdError):
    """The archive of the public data sets can't be reached, or sends something else than it announced; another try may do."""

    exit_code = 3


class CannotStartError(AsdError):
    """The daemon can't start or go on: device, bundle, broker."""

    exit_code = 3


class BundleError(CannotStartError):
    """A bundle that is missing, broken, too new for this program, or tampered with."""


class UntriedBundleError(BundleError):
    """A bundle that could not be tried now, since the box is too busy or has no memory left: nothing is known of it; another try may do."""


class UnknownMachineError(CannotStartError):
    """A machine that the bundle does not know."""


class RolloutError(BundleError):
    """What a server offers of bundles must not be used, or can't be had."""


class EnrolmentError(BundleError):
    """What was learned of a machine on this box can't be read, is damaged, or is not what this bundle and program can judge by."""


class SourceError(CannotStartError):
    """A source of sound that is missing or failed."""


class BrokerError(CannotStartError):
    """An MQTT broker that refuses us."""


class CannotJudgeError(AsdError):
    """A machine that can't be judged at present; says why. It is tried again, and its neighbours go on."""

    exit_code = 3


class ExportError(AsdError):
    """ONNX differs from torch, or a budget of size or accuracy is missed."""
