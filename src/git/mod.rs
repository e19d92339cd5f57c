//! Git on this machine and on the wire.
