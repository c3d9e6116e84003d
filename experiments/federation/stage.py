"""The rounds of a federation: weights go out, clients train them, the server merges what comes back; resumes by round.

`RUN/federation/` holds a checkpoint of the last round, `rounds.jsonl` with the figures of each, and in the end the
exported networks.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.configuration.federation_section import DIRECTORY
from experiments.experiment import Experiment
from experiments.federation.choice import Rewards, asked_clients, sent_layers
from experiments.federation.exports import export_networks
from experiments.federation.federation import Size
from experiments.federation.local import LocalTraining, Reply, Sent, message_bytes
from experiments.federation.networks import Changed
from experiments.federation.server import Server, ServerState
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.records import FederationFigures, RoundFigures
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from supernet.storage.manifest import write_text_atomically

ROUNDS = "rounds.jsonl"
Clients = Callable[[Sequence[Sent]], Iterable[Reply]]
"""Has clients do what messages ask, and gives their replies in the order of the messages."""


class Progress(NamedTuple):
    """Content of a checkpoint: all that the next round depends on."""

    server: ServerState
    rewards: Rewards


class Rounds:
    """The rounds of a federation in a run directory.

    Args:
        experiment: With a section `federation`.
        run: The run directory.
        stop: Read between clients and between rounds.
        server: Server of the same experiment, when it is used for several directories; its programs stay compiled.
    """

    def __init__(self, experiment: Experiment, run: Path, stop: StopRequest, server: Server | None = None) -> None:
        self._experiment, self._home, self._stop = experiment, run / DIRECTORY, stop
        self._log = run / "tensorboard" / DIRECTORY
        self.server = server or Server(experiment)
        self.federation = self.server.federation

    def checkpoints(self) -> Checkpoints:
        """Opens the checkpoints; use it in a `with`."""
        return Checkpoints(self._home / "checkpoints", 1, 0, run=f"{self._experiment.config.identity}/{DIRECTORY}")

    def fresh(self) -> Progress:
        """Returns what the first round begins with."""
        return Progress(self.server.fresh(), Rewards.none(self.federation.settings.number))

    def here(self) -> Clients:
        """Returns the clients as this process runs them, one after the other."""
        train = LocalTraining(self._experiment)

        def replies(messages: Sequence[Sent]) -> Iterable[Reply]:
            for message in messages:
                if self._stop:
                    raise Interrupted("stopped while clients were training")
                yield train(message)

        return replies

    def run(self, clients: Clients, quiet: bool) -> FederationFigures:
        """Runs the rounds that are left, and exports the networks.

        Args:
            clients: Who trains.
            quiet: No progress bar.

        Returns:
            Figures for the summary.

        Raises:
            UserError: A loss is not finite, or a checkpoint or an export is damaged.
            Interrupted: The stop was requested; the last whole round is saved.
        """
        settings = self.federation.settings
        with self.checkpoints() as checkpoints:
            progress, done, told = self.fresh(), checkpoints.latest() or 0, []
            if done:
                done, progress = checkpoints.restore(progress)
                told = [RoundFigures.from_json(one) for one in checkpoints.figures(done)["rounds"]]
            bar = progress_bar(total=settings.rounds, initial=done, desc="federation", unit="round", quiet=quiet)
            with bar, EventLog(self._log, done) as log:
                while done < settings.rounds:
                    if self._stop:
                        text = f"stopped after round {done} of {settings.rounds}"
                        raise Interrupted(f"{text}; a checkpoint of it is saved" if done else text)
                    progress, figures = self.round(progress, done, clients)
                    done += 1
                    told.append(figures)
                    log.scalars(done, _curves(figures))
                    log.flush()
                    rounds = [one.as_json() for one in told]
                    checkpoints.save(done, progress, 1 - figures.mean, {"rounds": rounds})
                    self._tell(told)
                    bar.update()
                    bar.set_postfix({"accuracy": f"{figures.mean:.1%}"}, refresh=False)
                checkpoints.wait()
        self._tell(told)
        exported = export_networks(self.server, progress.server, self._experiment, self._home / "subnets")
        return self._figures(told, exported)

    def _tell(self, told: Sequence[RoundFigures]) -> None:
        """Writes the figures of all rounds, where they are not there; those of a round that was lost go."""
        lines, file = "".join(f"{json.dumps(one.as_json())}\n" for one in told).encode(), self._home / ROUNDS
        if not file.is_file() or file.read_bytes() != lines:
            write_text_atomically(file, lines.decode())

    def round(self, progress: Progress, number: int, clients: Clients) -> tuple[Progress, RoundFigures]:
        """Runs one round; arguments and errors are those of `run`, and its number from 0."""
        settings, seed, sizes = self.federation.settings, self._experiment.config.seed, self.federation.sizes
        state, rewards = progress
        asked = asked_clients(settings.client_choice, rewards, settings.number, seed, number)
        importance = (
            self.server.importance(state)
            if settings.layer_choice.type == "importance"
            else np.zeros(self.federation.server.layers)
        )
        layers = [sent_layers(settings.layer_choice, importance, s.network.layers, seed, number) for s in sizes]
        weights = [self.server.compress(state, size) for size in range(len(sizes))]
        messages = [self._message(int(client), number, weights, layers) for client in asked]
        replies = list(clients(messages))
        returned = self.server.returned(weights, layers, replies)
        earned: list[float] | None = None
        if settings.client_choice.type == "ucb":
            by_client = self.server.rewards(returned)
            earned = [by_client[int(client)] for client in asked]
        rewards = rewards.after(asked, np.array(earned if earned is not None else [0.0] * len(asked)))
        state = self.server.after(state, returned)
        return Progress(state, rewards), self._round_figures(
            state, number, asked, layers,
            sum(message_bytes(message.weights) for message in messages),
            sum(message_bytes(reply.weights) for reply in replies), earned,
        )  # fmt: skip

    def _message(self, client: int, number: int, weights: Sequence[Changed], layers: Sequence[np.ndarray]) -> Sent:
        size = self.federation.size_of(client)
        return Sent(client, number, {path: np.asarray(array) for path, array in weights[size].items()}, layers[size])

    def _round_figures(
        self, state: ServerState, number: int, asked: np.ndarray, layers: Sequence[np.ndarray], down: int, up: int,
        earned: list[float] | None,
    ) -> RoundFigures:  # fmt: skip
        federation, validation = self.federation, self._experiment.data.validation
        by_size = [
            size.network.reached(self.server.compress(state, row), validation)
            for row, size in enumerate(federation.sizes)
        ]
        owners: list[Size] = [federation.sizes[federation.size_of(c)] for c in range(federation.settings.number)]
        reached = [by_size[federation.sizes.index(size)] for size in owners]
        own = [_in_shares(one.by_class, federation.class_shares(client)) for client, one in enumerate(reached)]
        names = [size.name for size in federation.sizes]
        return RoundFigures(
            number + 1, asked.tolist(),
            {name: np.flatnonzero(chosen).tolist() for name, chosen in zip(names, layers, strict=True)},
            down, up, federation.server.reached(state.weights, validation).accuracy,
            {name: one.accuracy for name, one in zip(names, by_size, strict=True)},
            own, float(np.mean([one.accuracy for one in reached])), float(np.mean(own)), earned,
        )  # fmt: skip

    def _figures(self, told: Sequence[RoundFigures], subnets: dict[str, str]) -> FederationFigures:
        times = np.bincount(np.concatenate([one.asked for one in told]), minlength=self.federation.settings.number)
        return FederationFigures(
            rounds=len(told),
            bytes_down=sum(one.bytes_down for one in told),
            bytes_up=sum(one.bytes_up for one in told),
            examples=[len(rows) for rows in self.federation.shards.clients],
            asked=times.tolist(),
            last=told[-1],
            subnets=subnets,
        )


def federate(experiment: Experiment, run: Path, stop: StopRequest, quiet: bool) -> FederationFigures:
    """Runs a federation in this process; what the run directory has is not done again.

    Args:
        experiment: With a section `federation`.
        run: The run directory.
        stop: Read between clients and between rounds.
        quiet: No progress bar.

    Returns:
        Figures for the summary.

    Raises:
        UserError: A loss is not finite, or a checkpoint or an export is damaged.
        Interrupted: `stop` was requested; the last whole round is saved.
    """
    rounds = Rounds(experiment, run, stop)
    return rounds.run(rounds.here(), quiet)


def _in_shares(by_class: np.ndarray, shares: np.ndarray) -> float:
    """Accuracy on examples whose classes have these shares; classes that the split lacks are left out."""
    known = ~np.isnan(by_class) & (shares > 0)
    return float(np.sum(by_class[known] * shares[known]) / max(float(np.sum(shares[known])), 1e-12))


def _curves(figures: RoundFigures) -> dict[str, float]:
    return {**figures.accuracies, "bytes_down": figures.bytes_down, "bytes_up": figures.bytes_up}
