"""Say which class a text beside a caption or an image stands for: an id, a position from 0, or a name.

In: a `ClassList`, and how numbers are meant. Out: text -> label, and text -> why it cannot be told. Ids 1 to 102 and
WebDataset's `cls` 0 to 101 are both numbers: taking the one for the other shifts every label.
"""

from collections import Counter
from typing import Literal

from synclones.base.errors import InputError
from synclones.prompts.classes.lists import ClassList

ClassNumbers = Literal["ask", "id", "position"]


class ClassTexts:
    """What the texts of a class list stand for.

    Attributes:
        labels: text -> label, of texts with one meaning.
    """

    def __init__(self, classes: ClassList, numbers: ClassNumbers = "ask"):
        """Read the list; ``numbers`` says what a number is where its meanings differ."""
        self._names = [info.name for info in classes.classes]
        self._list_name = classes.name
        self._by_id = {info.class_id: number for number, info in enumerate(classes.classes)}
        counts = Counter(self._names)
        self._by_name = {name: number for number, name in enumerate(self._names) if counts[name] == 1}
        self._by_position = {str(number): number for number in range(len(self._names))}
        # Ids such as 007 are numbers too: a tar's `cls` would say 7.
        values = Counter(str(int(text)) for text in self._by_id if _is_number(text))
        self._by_number = {
            str(int(text)): label
            for text, label in self._by_id.items()
            if _is_number(text) and (values[str(int(text))] == 1 or text == str(int(text)))
        }
        meanings = (self._by_number, {text: n for text, n in self._by_name.items() if text in self._by_position})
        differ = any(self._by_position.get(text) != label for meaning in meanings for text, label in meaning.items())
        texts = [text for text in {**self._by_name, **self._by_id} if not _is_canonical(text)]
        self.labels = {text: self._by_id.get(text, self._by_name.get(text, -1)) for text in texts if self._is_one(text)}
        if numbers == "position" or (numbers == "ask" and not differ):
            self.labels |= self._by_position
        elif numbers == "id":
            self.labels |= self._by_number

    def _is_one(self, text: str) -> bool:
        return self._by_id.get(text, self._by_name.get(text)) == self._by_name.get(text, self._by_id.get(text))

    def label(self, where: str, text: str) -> int:
        """Return the label of one text.

        Raises:
            InputError: it is no class, or may be two; the message begins with ``where``.
        """
        if text in self.labels:
            return self.labels[text]
        if not text:
            raise InputError(f"{where}: no class is given; write an id, a number or a name of {self._list_name}")
        meanings = {"id": self._by_number, "position from 0": self._by_position}
        if _is_canonical(text) and any(text in labels for labels in meanings.values()):
            read = [f"the {kind} of {self._name(labels.get(text))}" for kind, labels in meanings.items()]
            raise InputError(
                f"{where}: class {text!r} is {' and '.join(read)} in {self._list_name}; "
                "say which is meant with --class-numbers id or --class-numbers position"
            )
        if text in self._by_id and text in self._by_name:
            names = f"{self._name(self._by_id[text])}, and the name of another class"
            raise InputError(f"{where}: class {text!r} is the id of {names} in {self._list_name}; rename one of them")
        raise InputError(f"{where}: class {text!r} is none of {self._list_name}; write an id, a number or a name of it")

    def _name(self, label: int | None) -> str:
        return "no class" if label is None else repr(self._names[label])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _is_canonical(text: str) -> bool:
    return _is_number(text) and text == str(int(text))
