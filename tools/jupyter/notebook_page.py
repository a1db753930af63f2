"""What stands in the page of a notebook that JupyterLab has open: prompts, outputs, pictures.

Everything is asked of the page, not of the file: a figure that is saved but not drawn is missing
here. JupyterLab must have been started with ``--LabApp.expose_app_in_browser=True``.
"""

from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page
from playwright.sync_api import TimeoutError as NotInTime

WHAT_STANDS_IN_THE_PAGE = """
async () => {
    const found = [];
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    for (const cell of window.jupyterapp.shell.currentWidget.content.widgets) {
        if (cell.model.type !== 'code') continue;
        cell.node.scrollIntoView();
        await cell.ready;
        await frame();
        const area = cell.outputArea, images = [...area.node.querySelectorAll('img')];
        await Promise.all(images.map(image => image.decode().catch(() => null)));
        const outputs = area.model.toJSON();
        found.push({
            source: cell.model.sharedModel.getSource(),
            tags: cell.model.getMetadata('tags') ?? [],
            prompt: cell.node.querySelector('.jp-InputPrompt').innerText,
            text: area.node.innerText,
            errors: outputs.filter(o => o.output_type === 'error').map(o => o.ename),
            figures: outputs.filter(o => o.data?.['image/png'] || o.data?.['image/svg+xml']).length,
            outputs: outputs.length,
            rendered: [...area.node.querySelectorAll('.jp-OutputArea-child')]
                .filter(node => node.getBoundingClientRect().height > 0).length,
            images: images.map(image => {
                const {width, height} = image.getBoundingClientRect();
                return {width, height, pixels: image.naturalWidth, alt: image.alt};
            }),
        });
    }
    return found;
}
"""


@dataclass
class Cell:
    """A code cell as it stands in the page; ``images`` have sizes in CSS pixels."""

    source: str
    tags: list[str]
    prompt: str  # "[3]:" once it has run, "[ ]:" before, "[*]:" meanwhile
    text: str
    errors: list[str]
    figures: int  # in the model; `images` are what the page shows
    outputs: int
    rendered: int
    images: list[dict]

    def problems(self) -> list[str]:
        """What is wrong with it, in words; an empty list if nothing is."""
        found = []
        if self.source and not self.prompt.strip("[]: \n").isdecimal():
            found.append(f"has not run (its prompt is {self.prompt!r})")
        if self.errors and "raises-exception" not in self.tags:
            found.append(f"raised {', '.join(self.errors)}")
        if not self.errors and "raises-exception" in self.tags:
            found.append("was to raise an exception and did not")
        if self.rendered < self.outputs:
            found.append(f"has {self.outputs} outputs, and the page shows {self.rendered}")
        if len(self.images) < self.figures:
            found.append(f"has {self.figures} figures, and the page shows {len(self.images)}")
        for image in self.images:
            if min(image["width"], image["height"], image["pixels"]) < 10:
                found.append(f"has a figure that cannot be seen: {image}")
            elif not image["alt"]:
                found.append("has a figure without alt text")
        first = self.source.strip().split("\n")[0]
        return [f"the cell {first!r} {what}" for what in found]


@dataclass
class Notebook:
    """The notebook in front. Every waiting has a deadline and says what was in the way."""

    page: Page
    folder: Path  # of the copy of the course that it lies in
    complaints: list[str] = field(default_factory=list)  # of the page's own programs

    def open(self, path: str, seconds: float = 60) -> None:
        """Open ``path`` (from the course's folder), or bring it to the front if it is open."""
        self.page.evaluate(
            "path => { window.jupyterapp.commands.execute('docmanager:open', {path}) }", path
        )
        self.wait_for(path, seconds)

    def wait_for(self, path: str, seconds: float = 60) -> None:
        """Wait until ``path`` is in front and its kernel idle."""
        self._wait(
            f"{path} to be open with a kernel",
            """path => {
                const panel = window.jupyterapp?.shell.currentWidget;
                return panel?.context?.path === path && panel.context.isReady
                    && panel.sessionContext?.isReady
                    && panel.sessionContext.session?.kernel?.status === 'idle';
            }""",
            path,
            seconds,
        )

    def run_all(self, seconds: float) -> None:
        """Run → Run All Cells, to the end or to the first error."""
        self.page.evaluate(
            """() => {
                window.hasRun = false;
                window.jupyterapp.commands.execute('notebook:run-all-cells')
                    .finally(() => { window.hasRun = true; });
            }"""
        )
        # The command is over at the first error, an expected one too, while later cells still run.
        self._wait(
            "all cells to have run",
            """() => {
                const panel = window.jupyterapp.shell.currentWidget;
                const cells = panel.content.widgets.filter(cell =>
                    cell.model.type === 'code' && cell.model.sharedModel.getSource());
                const failed = cells.some(cell =>
                    !(cell.model.getMetadata('tags') ?? []).includes('raises-exception')
                    && cell.outputArea.model.toJSON().some(o => o.output_type === 'error'));
                return window.hasRun && panel.sessionContext.session?.kernel?.status === 'idle'
                    && (failed || cells.every(cell => cell.model.executionCount !== null));
            }""",
            None,
            seconds,
        )

    def replace(self, old: str, new: str) -> None:
        """Type ``new`` into the one cell whose text contains ``old``."""
        number = self.page.evaluate(
            """([old, text]) => {
                const cells = window.jupyterapp.shell.currentWidget.content.widgets
                    .filter(cell => cell.model.sharedModel.getSource().includes(old));
                if (cells.length === 1) cells[0].model.sharedModel.setSource(text);
                return cells.length;
            }""",
            [old, new],
        )
        assert number == 1, f"{number} cells contain {old!r}"

    def cells(self) -> list[Cell]:
        """Its code cells, each scrolled into view and looked at."""
        return [Cell(**cell) for cell in self.page.evaluate(WHAT_STANDS_IN_THE_PAGE)]

    def dialogs(self) -> list[str]:
        """The texts of open dialogs and of notices in the corner."""
        nodes = self.page.locator(".jp-Dialog, .Toastify__toast")
        return [text.strip() for text in nodes.all_inner_texts()]

    def close(self) -> None:
        """End its kernel, so that the next notebook has the cores; close its tab."""
        self.page.evaluate(
            """async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                await panel.sessionContext.shutdown();
                await panel.context.save();
                panel.close();
            }"""
        )

    def _wait(self, what: str, condition: str, argument: object, seconds: float) -> None:
        try:
            self.page.wait_for_function(condition, arg=argument, timeout=1000 * seconds)
        except NotInTime:
            raise AssertionError(
                f"waited {seconds:.0f} s for {what}; "
                f"dialogs: {self.dialogs()}; complaints: {self.complaints}"
            ) from None
