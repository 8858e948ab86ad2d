"""The commands of `kvctl route`, one module each: what a proxy is driven with."""
