"""Records of exported networks in use: what they reach, predict and write."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.records.exported import Figures
from experiments.records.plain import JsonObject, plain
from supernet.tasks.answers import ExampleAnswer


@dataclass(frozen=True)
class Evaluation:
    """Result of an exported network on a split.

    Attributes:
        directory: Directory of the network.
        examples: Number of examples of the split.
        figures: Figures of the task, such as `accuracy`.
    """

    directory: str
    examples: int
    figures: Figures

    def as_json(self) -> JsonObject:
        """Returns the result as `supernest evaluate --json` prints it: figures stand among the fields."""
        return {"directory": self.directory, "examples": self.examples, **self.figures}


@dataclass(frozen=True)
class FilePrediction:
    """Prediction of one example of a file.

    Attributes:
        file: Path of the file.
        row: Place of the example in the file, such as `line 2`; None where a file is one example.
        answer: Prediction of the network.
    """

    file: str
    row: str | None
    answer: ExampleAnswer

    def as_json(self) -> JsonObject:
        """Returns the prediction as `supernest predict --json` prints it."""
        row = {} if self.row is None else {"row": self.row}
        return {"file": self.file, **row, **self.answer.as_json()}

    def __str__(self) -> str:
        """The prediction as a line to read."""
        where = self.file if self.row is None else f"{self.file} {self.row}"
        said = [f"{one.label} {one.probability:.2%}" for one in self.answer.top or ()]
        said += [f"{name} {value:.6g}" for name, value in (self.answer.values or {}).items()]
        return f"{where}: {', '.join(said)}"


@dataclass(frozen=True)
class DraftFigures:
    """Figures of a draft model, which proposed tokens to another one.

    Attributes:
        rounds: Number of times that it proposed some.
        proposed: Number of tokens that it proposed in all.
        accepted: Number of these that the other model kept.
    """

    rounds: int
    proposed: int
    accepted: int


@dataclass(frozen=True)
class Bleu:
    """Corpus BLEU of translations against one reference each, by sacreBLEU.

    Attributes:
        score: 0 to 100.
        signature: Version and settings, which say with which other scores it can be compared.
    """

    score: float
    signature: str


@dataclass(frozen=True)
class TaskFigures:
    """Figures of a language model on a task of lm-evaluation-harness.

    Attributes:
        task: Name of the task.
        examples: Number of its examples that were measured.
        shots: Number of solved examples before each; None where the task does not say.
        figures: Value and standard error of each figure by name, such as `acc`; the error is None where it has none.
    """

    task: str
    examples: int
    shots: int | None
    figures: Mapping[str, tuple[float, float | None]]

    def as_json(self) -> JsonObject:
        """Returns the figures as `supernest evaluate --tasks --json` prints them."""
        return plain(self)


@dataclass(frozen=True)
class TranslatedText:
    """Translations of the lines of a text.

    Attributes:
        lines: Translations, in order.
        bleu: Their BLEU; None without references.
    """

    lines: list[str]
    bleu: Bleu | None

    def as_json(self) -> JsonObject:
        """Returns the text as `supernest translate --json` prints it; without references it has no `bleu`."""
        return {name: value for name, value in plain(self).items() if value is not None}


@dataclass(frozen=True)
class GeneratedText:
    """Text that a language model wrote after a prompt.

    Attributes:
        prompt: Text that is continued.
        text: Continuation of the text.
        tokens: Tokens of what follows.
        draft: Figures of the draft model; None without one.
        layers: Number of layers that each token took; None where tokens cannot leave early.
    """

    prompt: str
    text: str
    tokens: list[int]
    draft: DraftFigures | None = None
    layers: list[int] | None = None

    def as_json(self) -> JsonObject:
        """Returns the text as `supernest generate --json` prints it."""
        return plain(self)
