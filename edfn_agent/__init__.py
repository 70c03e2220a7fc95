"""Flow logs of AWS VPCs and transit gateways, exported as IPFIX."""

__version__ = "0.1.0"
