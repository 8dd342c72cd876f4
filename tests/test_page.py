"""One page style: what is text is escaped, wide tables scroll by themselves, a page needs no other file."""

from html.parser import HTMLParser

from synclones.base.page import data_uri, image_figure, image_row, page, table

EVIL = "</title><script>alert(1)</script>\"'&"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_titles_captions_notes_and_headings_are_escaped():
    figure = image_figure(data_uri(b"\xff\xd8"), EVIL, EVIL, EVIL, EVIL)
    text = page(EVIL, [table([["1", "2"]], (EVIL, "b"), numbers=True), image_row([figure])]).decode()
    read = Tags()
    read.feed(text)
    assert "script" not in read.tags and text.count("&lt;script&gt;") == 8
    assert "data:image/jpeg;base64,/9g=" in text and "http" not in text


def test_pages_fit_a_telephone_and_tables_scroll_by_themselves():
    text = page("t", [table([["name", '<td class="real">1</td>']], first="th")], small_images=True).decode()
    assert "width=device-width" in text and '<div class="table"><table>' in text
    assert '<tr><th>name</th><td class="real">1</td></tr>' in text and "image-rendering:pixelated" in text
