"""The requests, by what is unusual about them."""

from tests.interop.differential.case import Case
from tests.interop.differential.corpus.connections import CONNECTIONS
from tests.interop.differential.corpus.forwarding import FORWARDING
from tests.interop.differential.corpus.framing import FRAMING
from tests.interop.differential.corpus.heads import HEADS
from tests.interop.differential.corpus.paths import PATHS
from tests.interop.differential.corpus.responses import RESPONSES

CORPUS: tuple[Case, ...] = (*HEADS, *FRAMING, *CONNECTIONS, *FORWARDING, *PATHS, *RESPONSES)
