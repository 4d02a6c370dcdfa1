# SPDX-License-Identifier: Apache-2.0
"""How is a report shown: on the pull request, in the job summary, as a file, in the terminal, on a source line?

Sees nothing but the Report. Words are built in Python (`words`, `page`), laid out by the templates, escaped by the view.
"""

from gate.render.annotate import Annotation, annotations
from gate.render.opening import Headline, headline
from gate.render.terminal import terminal
from gate.render.views import comment, html, summary, write_views

__all__ = ["Annotation", "Headline", "annotations", "comment", "headline", "html", "summary", "terminal", "write_views"]
