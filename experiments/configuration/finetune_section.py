"""The section `finetune`: when the training of an exported network may end early (`supernest finetune`)."""

from typing import Annotated

from pydantic import BaseModel, Field

from experiments.configuration.plugin_section import STRICT


class FinetuneStoppingSection(BaseModel):
    """Finetunings that stop once more steps will probably not pay; the network is then exported as it is at that step.

    Attributes:
        tolerance: Smallest gain that justifies more steps, over the network's best result so far and over the best
            earlier variant: a share of 1 for accuracies (0.005 is half a percentage point), a share of the result
            before finetuning for perplexities and errors.
        confidence: Probability with which the forecast of the learning curve must exclude such a gain.
        evaluations: Largest number of evaluations on the validation split over a whole training.
    """

    model_config = STRICT

    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.005
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    evaluations: Annotated[int, Field(ge=4, le=100)] = 20


class FinetuneSection(BaseModel):
    """Further training of exported networks (`supernest finetune`).

    Attributes:
        early_stopping: Condition for stopping a finetuning early; null never stops.
    """

    model_config = STRICT

    early_stopping: FinetuneStoppingSection | None = None
