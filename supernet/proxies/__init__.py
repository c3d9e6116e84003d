"""Zero-cost proxies: scores of untrained networks, one registered class each."""

from supernet.proxies.agreement import CONSENSUS, consensus
from supernet.proxies.networks import Networks, PlainNetwork, SupernetNetworks
from supernet.proxies.proxy import PROXIES, Batch, LayerProxy, Proxy, Scoring, proxies

__all__ = [
    "CONSENSUS",
    "PROXIES",
    "Batch",
    "LayerProxy",
    "Networks",
    "PlainNetwork",
    "Proxy",
    "Scoring",
    "SupernetNetworks",
    "consensus",
    "proxies",
]
