"""An HTML page as tests look at it: well-formed, its texts, and what it would load."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}
OUTSIDE = {"src", "srcset", "href", "data", "poster", "action", "xlink:href", "background"}


class Page(HTMLParser):
    """Raises AssertionError where a tag is not closed, or closed that was not opened.

    Attributes:
        ids: of the elements.
        loads: values of attributes that could make a browser load something.
        handlers: attributes such as ``onclick``.
        tags: how often each occurs.
    """

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.html, self.ids, self.loads, self.handlers = html, [], [], []
        self.tags, self._open, self._texts, self._marks = {}, [], [], []
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in OUTSIDE:
                self.loads.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data):
        if not {"style", "script"} & set(self._open):
            self._texts.append(data)

    @property
    def text(self):
        """What is read, one blank between words."""
        return " ".join(" ".join(self._texts).split())
