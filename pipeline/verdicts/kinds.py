"""Names: of verdicts, of the kinds among them that a single spectrum can tell, and of simulated classes' kinds."""

from __future__ import annotations

from typing import Final

PHYSICAL: Final = "physical"
FIBER_GROUP: Final = "fiber_group"  # only the survey can tell, see ``pipeline.verdicts.clusters``
KINDS: Final = ("sky_residual", "arm_step", "spike", "bad_column", "wrong_redshift", "star_or_blend", PHYSICAL)
VERDICTS: Final = (*KINDS, FIBER_GROUP)
ARTEFACTS: Final = ("sky_residual", "arm_step", "spike", "bad_column", FIBER_GROUP)  # the instrument's or pipeline's

KIND_OF_CLASS: Final[dict[str, str]] = {  # of the simulator's classes; the others are physical
    "sky_residual_9400": "sky_residual", "sky_residual_red": "sky_residual", "sky_fiber": "sky_residual",
    "arm_step_5800": "arm_step", "arm_step_7570": "arm_step", "step_within_r": "arm_step",
    "spike_5600": "spike", "cosmic_ray": "spike",
    "dip_4400": "bad_column", "absorption_8600": "bad_column", "masked_run": "bad_column", "nan_masked": "bad_column",
    "bad_column": "bad_column", "fiber_group": FIBER_GROUP, "wrong_redshift": "wrong_redshift",
    "white_dwarf": "star_or_blend", "star_blend": "star_or_blend", "galaxy_blend": "star_or_blend",
    "supernova": "star_or_blend",
}  # fmt: skip

# kinds that a model's detector knows, in its names for them: second sources of light, and the instrument's faults
SOURCES: Final = ("double_quasar", "star_blend", "galaxy_blend", "supernova", "white_dwarf")
FAULTS: Final = (
    "sky_residual_9400", "sky_residual_red", "spike_5600", "arm_step_5800", "arm_step_7570", "step_within_r",
    "dip_4400", "absorption_8600", "sky_fiber", "cosmic_ray", "fiber_group",
)  # fmt: skip

MEANING: Final[dict[str, str]] = {
    "sky_residual": "what is left of the night sky's lines, or a fiber that saw only sky",
    "arm_step": "a step or a ramp where the spectrograph's arms meet, or within the R arm",
    "spike": "a cosmic ray or another spike narrower than the instrument resolves",
    "bad_column": "bad or masked pixels, or a place where the calibration is known to fail",
    FIBER_GROUP: "the same feature in neighbouring fibers of one night, or at one wavelength all over the survey",
    "wrong_redshift": "an ordinary quasar at another redshift than the catalog's",
    "star_or_blend": "a star, or the light of a star, galaxy or supernova with the quasar's",
    PHYSICAL: "a quasar unlike the ordinary ones",
}


def kind_of(name: str) -> str:
    """Return the verdict that a simulated class deserves."""
    return KIND_OF_CLASS.get(name, PHYSICAL)


def is_artefact(verdict: str) -> bool:
    """Whether a verdict says that the instrument or the pipeline made it."""
    return verdict in ARTEFACTS
