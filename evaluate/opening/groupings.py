"""Groups of ImageNet's classes that image sets of coarser classes are answered in: facts, typed from their sources.

In: the name of a grouping, or the ``members`` that a suite states. Out: class of the set -> ids of the model's classes.
Numbers are positions among ImageNet's 1,000 classes in sorted order; ranges hold their ends.
"""

from collections.abc import Mapping
from typing import Any

from synclones.base.errors import InputError

SHAPES = "shapes"
IN9 = "in-9"
FOCUS = "focus"
LAION_C = "laion-c"

GROUPINGS: dict[str, dict[str, str]] = {
    # github.com/bethgelab/model-vs-human at 79ed7cd (Geirhos et al. 2019, arXiv 1811.12231): 207 classes.
    SHAPES: {
        "airplane": "404",
        "bear": "294-297",
        "bicycle": "444 671",
        "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
        "boat": "472 554 625 814 914",
        "bottle": "440 720 737 898-899 901 907",
        "car": "436 511 817",
        "cat": "281-286",
        "chair": "423 559 765 857",
        "clock": "409 530 892",
        "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
        "elephant": "385-386",
        "keyboard": "508 878",
        "knife": "499",
        "oven": "766",
        "truck": "555 569 656 675 717 734 864 867",
    },
    # github.com/MadryLab/backgrounds_challenge at 46d224b (Xiao et al. 2020, arXiv 2006.09994): 370 classes.
    IN9: {
        "dog": "151-170 173-268",
        "bird": "7-24 87-100 127-146",
        "wheeled vehicle": (
            "407-408 428 436 444 468 511 547 555 561 565 569 573 586 603 609 612 627 656 661 665 670-671 675 690 705 "
            "717 734 751 757 791 802-803 817 820 829 847 864 866-867 870 880"
        ),
        "reptile": "33-68",
        "carnivore": "269-280 286-299 356-362 387-388",
        "insect": "300-326",
        "musical instrument": (
            "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 889"
        ),
        "primate": "365-384",
        "fish": "0-6 389-397",
    },
    # github.com/priyathamkat/focus at cd458e3 (Kattakinda and Feizi 2022, arXiv 2110.04644): 226 classes.
    FOCUS: {
        "truck": "407 555 569 654 675 717 757 779 864 867",
        "car": "436 468 511 609 627 656 705 734 751 817",
        "plane": "404 895",
        "ship": "403 472 510 554 625 628 693 724 780 814 914",
        "cat": "281-285",
        "dog": "151-268 273-275",
        "horse": "339-340",
        "deer": "351-353",
        "frog": "30-32",
        "bird": "7-24 80-100 127-146",
    },
    # github.com/FanfeiLi/LAION-C at 96d97c1 (Li et al. 2025): 285 classes.
    LAION_C: {
        "ball": "429-430 768 805 852 890",
        "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
        "boat": "472 510 554 576 625 814 914",
        "bottle": "440 720 737 898-899 901 907",
        "butterfly": "321-326",
        "car_truck": "436 511 555 569 656 675 717 734 817 864 867",
        "cat": "281-286",
        "chair": "423 559 703 765 831 857",
        "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
        "fish": "0-4 147-148 393-397",
        "fruit": "948-951 953-954",
        "instruments": "401-402 420 432 546 558 566 579 593-594 776 881 889",
        "primate": "365-382",
        "snakes": "52-55 57-68",
        "timekeeping": "409 530-531 826 835 892",
        "tools": "491 499 587 596 740 784 792",
    },
}


def positions(grouping: str) -> dict[str, tuple[int, ...]]:
    """Return class of the set -> positions among ImageNet's 1,000 classes, ascending."""
    return {name: _numbers(text) for name, text in GROUPINGS[grouping].items()}


def members_of(
    grouping: str | None, options: Mapping[str, Any], class_ids: tuple[str, ...], where: object
) -> dict[str, tuple[str, ...]]:
    """Return class of the set -> ids of the suite's classes: as the option ``members`` states, else by a grouping.

    Raises:
        InputError: ``members`` is no mapping to classes of the suite, or is missing and its classes are not ImageNet's.
    """
    if "members" in options:
        return _stated(options["members"], class_ids, where)
    from synclones.models.imagenet import imagenet_ids  # loads timm

    if grouping is None or class_ids != imagenet_ids():
        raise InputError(
            f"{where}: members is missing, and the suite's {len(class_ids)} classes are not ImageNet's 1,000; state "
            "the classes of the set and which of the suite's stand for each"
        )
    return {name: tuple(class_ids[number] for number in numbers) for name, numbers in positions(grouping).items()}


def _numbers(text: str) -> tuple[int, ...]:
    ranges = [word.split("-") for word in text.split()]
    return tuple(number for bounds in ranges for number in range(int(bounds[0]), int(bounds[-1]) + 1))


def _stated(given: Any, class_ids: tuple[str, ...], where: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{where}: members: {given!r} was given, expected class of the set -> classes of the suite")
    known, owner = set(class_ids), dict[str, str]()
    for name, ids in given.items():
        if not isinstance(ids, list) or not ids:
            raise InputError(f"{where}: members: {name}: {ids!r} was given, expected a list of classes of the suite")
        for class_id in ids:
            if class_id not in known:
                raise InputError(f"{where}: members: {name}: {class_id!r} is none of the suite's classes; correct it")
            if owner.setdefault(class_id, name) != name:
                raise InputError(f"{where}: members: {class_id!r} is of {owner[class_id]} and {name}; keep it once")
    return {name: tuple(ids) for name, ids in given.items()}
