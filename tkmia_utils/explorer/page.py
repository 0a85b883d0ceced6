"""The explorer without a kernel: the same module in a page, with all that it shows."""

import html
import json
from collections.abc import Sequence
from hashlib import sha256

from tkmia_utils.explorer.recording import Recording, checked
from tkmia_utils.explorer.widget import MODULE, STYLE, first_pair

# what the module asks of a widget's model, kept in the page
MODEL = """\
function modelOf(values) {
  const listeners = new Map();
  const heard = (name) => listeners.get(name) ?? listeners.set(name, new Set()).get(name);
  return {
    get: (name) => values[name],
    set: (name, value) => {
      values[name] = value;
      for (const listener of [...heard("change:" + name)]) listener();
    },
    on: (name, listener) => heard(name).add(listener),
    off: (name, listener) => heard(name).delete(listener),
    save_changes: () => {},
    send: () => {},
  };
}
"""


def embed(recordings: Sequence[Recording]) -> str:
    """HTML that shows recordings anywhere in a page, without a kernel or another file.

    Parameters
    ----------
    recordings : sequence of dict
        What :func:`tkmia_utils.explorer.recording.record` returned.

    Returns
    -------
    str
        An element, a style and two scripts.
    """
    kept = checked(recordings)
    values = {
        "recordings": kept, "shown": first_pair(kept), "step": 0, "offer": {}, "state": "idle",
        "progress": [0, 1], "message": "", "kernel": False,
    }  # fmt: skip
    name = f"explorer-{sha256(repr(kept).encode()).hexdigest()[:12]}"
    return f"""\
<style>
{STYLE}</style>
<div id="{name}"><noscript>To walk through the steps, a browser has to run the script of this \
page.</noscript></div>
<script type="application/json" id="{name}-values">{harmless(json.dumps(values))}</script>
<script type="module">
{MODEL}
const source = {harmless(json.dumps(MODULE))};
const address = URL.createObjectURL(new Blob([source], {{ type: "text/javascript" }}));
const {{ default: explorer }} = await import(address);
const values = JSON.parse(document.getElementById("{name}-values").textContent);
explorer.render({{ model: modelOf(values), el: document.getElementById("{name}") }});
</script>
"""


def static_page(recordings: Sequence[Recording], *, title: str = "Recorded attacks") -> str:
    """A whole page that shows recordings, to be opened as a file.

    Parameters
    ----------
    recordings : sequence of dict
        What :func:`tkmia_utils.explorer.recording.record` returned.
    title : str
        Of the page.

    Returns
    -------
    str
    """
    name = html.escape(title)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
html {{ color-scheme: light dark; background: light-dark(#ffffff, #14181e); }}
body {{ margin: 0 auto; max-width: 75rem; padding: 1rem; font-family: system-ui, sans-serif; }}
</style>
</head>
<body>
<main>
<h1>{name}</h1>
{embed(recordings)}</main>
</body>
</html>
"""


def harmless(text: str) -> str:
    """JSON that cannot end the script in which it stands."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
