"""The constants of all corruptions, by image size: facts, typed from the code that made the published sets.

In and out: nothing; this file is data. A row holds the values of severities 1 to 5, in the order in which the
function of that name takes them. Sources: github.com/hendrycks/robustness at 8190fe3, ``ImageNet-C/create_c``
(Hendrycks and Dietterich 2019, arXiv 1903.12261): ``make_imagenet_c.py`` (224 px), ``make_tinyimagenet_c.py`` (64 px)
and ``make_cifar_c.py`` (32 px); github.com/EPFL-VILAB/3DCommonCorruptions at 4fc007b, ``create_non3d.py``,
``create_flash.py``, ``create_fog.py``, ``create_dof.py``, ``dataset.py`` (Kar et al. 2022, arXiv 2203.01441);
github.com/FanfeiLi/LAION-C at 3c6cad5, ``apply_distortions.py`` (Li et al. 2025). No value is inferred.
"""

from typing import Any

SIZES = (32, 64, 224)
TEST = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The 15 corruptions of ImageNet-C's mean."""
VALIDATION = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four that are left for choosing settings."""
IMAGENET_C = TEST + VALIDATION
ALEXNET_ERRORS = {
    **{"gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.92264, "defocus_blur": 0.81988},
    **{"glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.79836, "snow": 0.866816, "frost": 0.826572},
    **{"fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056},
    **{"pixelate": 0.71784, "jpeg_compression": 0.6065},
}
"""AlexNet's share of wrong answers on the released ImageNet-C of 224 px, mean over severities: what mCE divides by."""
IMAGENET_3DCC = ("color_quant", "iso_noise", "low_light")
"""Those of ImageNet-3DCC that an image is enough for."""
OF_DEPTH = ("near_focus", "far_focus", "fog_3d")
"""Those of ImageNet-3DCC that need a depth map as well; `three_d` has ``flash`` for who has reshading."""
LAION_C = ("vertical_lines", "geometric_shapes", "luminance_checkerboard")
"""Those of LAION-C that are procedural."""

Row = tuple[Any, ...]

_SATURATE_BELOW_1 = ((0.3, 0), (0.1, 0))

BY_SIZE: dict[int, dict[str, Row]] = {
    224: {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
        # radius, standard deviation of the smoothing of its edge
        "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "gaussian_blur": (1, 2, 3, 4, 6),
        # standard deviation, largest move, rounds
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        # radius, standard deviation along the motion
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        # factors: start, end and step of a float `arange`, whose rounding decides how many there are
        "zoom_blur": ((1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02), (1, 1.31, 0.03)),
        # mean and standard deviation of the layer, zoom, threshold, motion's radius and deviation, share of the image
        "snow": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        # shares of image and texture
        "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        # amount, decay of the fractal
        "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        # factor, summand
        "saturate": (*_SATURATE_BELOW_1, (2, 0), (5, 0.1), (20, 0.2)),
        # mean and deviation of the layer, its blur, threshold, strength (water) or blur (mud), kind
        "spatter": (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        # px: size of the moves, their smoothness, random affine map. Upstream multiplies by 244, not by 224
        "elastic_transform": tuple(
            (244 * a, 244 * b, 244 * c)
            for a, b, c in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
        ),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (25, 18, 15, 10, 7),
    },
    64: {
        "gaussian_noise": (0.04, 0.08, 0.12, 0.15, 0.18),
        "shot_noise": (250, 100, 50, 30, 15),
        "impulse_noise": (0.01, 0.02, 0.05, 0.08, 0.14),
        "speckle_noise": (0.15, 0.2, 0.25, 0.3, 0.35),
        "defocus_blur": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "gaussian_blur": (0.5, 0.75, 1, 1.25, 1.5),
        "glass_blur": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "motion_blur": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "zoom_blur": tuple((1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        "frost": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        "fog": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "saturate": (*_SATURATE_BELOW_1, (2, 0), (5, 0.1), (30, 0.2)),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0),
            (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        "elastic_transform": tuple(
            (64 * a, 64 * b, 64 * c)
            for a, b, c in ((0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02))
        ),
        "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),
        "jpeg_compression": (65, 58, 50, 40, 25),
    },
    32: {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
        "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "zoom_blur": tuple((1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26)),
        "snow": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "saturate": (*_SATURATE_BELOW_1, (1.5, 0), (2, 0.1), (2.5, 0.2)),
        "spatter": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        "elastic_transform": tuple(
            (32 * a, 32 * b, 32 * c)
            for a, b, c in ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
        ),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": (80, 65, 58, 50, 40),
    },
}
FROST_SCALE = {224: 1.0, 64: 0.3, 32: 0.2}
"""By how much frost textures are shrunk before they are cut."""

OF_ANY_SIZE: dict[str, Row] = {
    "color_quant": (5, 4, 3, 2, 1),  # bits that are kept
    "iso_noise": tuple((25, 0.7 * deviation) for deviation in (0.08, 0.12, 0.18, 0.26, 0.38)),  # photons, deviation
    "low_light": (0.6, 0.5, 0.4, 0.3, 0.2),  # brightest level
    "vertical_lines": ((224, 1), (178, 2), (112, 4), (84, 6), (60, 8)),  # lines, px between their points
    "geometric_shapes": (150, 300, 600, 800, 1000),
    "luminance_checkerboard": ((0, 50), (50, 100), (100, 125), (125, 150), (150, 255)),  # grey levels
    "near_focus": (3, 4, 5, 6, 7),  # px of blur for each part by which a distance is off
    "far_focus": (1.5, 2.5, 3.5, 4.5, 5.5),
    "fog_3d": (4, 8, 12, 16, 20),  # decay of what is seen with the distance
}
"""Made for 224 px; their makers publish one table."""
LOW_LIGHT_NOISE = (120, 0.018)  # photons, deviation: those of severity 3 at every severity
FLASH = (2.4, 1.4, 0.9, 0.6, 0.4)
FOCUS_LAYERS = 8  # between quantiles of the depth
FOCUS_AT = {"near_focus": 0, "far_focus": 7}  # number of the quantile that is sharp
CHECKERBOARD_TILE_PX = 14
