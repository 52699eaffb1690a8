"""The tables, as a list of migrations: the n-th brings a store from version n to n + 1. None is ever edited."""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE meta (
        key    TEXT PRIMARY KEY,
        value  TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE networks (
        id         TEXT PRIMARY KEY,
        phase      TEXT NOT NULL CHECK (phase IN ('pending', 'ready', 'deleting')),
        link       TEXT NOT NULL UNIQUE,  -- one bridge has one network
        forwards6  INTEGER NOT NULL,      -- routes IPv6 through the host
        intent     TEXT NOT NULL          -- JSON of NetworkRow's model
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE subnets (             -- of networks: the claim that no two overlap
        network  TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
        version  INTEGER NOT NULL CHECK (version IN (4, 6)),
        first    BLOB NOT NULL,        -- packed address
        last     BLOB NOT NULL,
        PRIMARY KEY (version, first)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX subnets_of_network ON subnets (network);

    CREATE TABLE endpoints (
        id        TEXT PRIMARY KEY,
        network   TEXT NOT NULL REFERENCES networks (id) ON DELETE RESTRICT,
        phase     TEXT NOT NULL CHECK (phase IN ('pending', 'ready', 'deleting')),
        link      TEXT NOT NULL UNIQUE,
        ipv4      BLOB,
        ipv6      BLOB,
        sandbox   TEXT,
        external  INTEGER NOT NULL DEFAULT 0,
        intent    TEXT NOT NULL        -- JSON of EndpointRow's model and ports
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX endpoints_of_network ON endpoints (network);
    CREATE UNIQUE INDEX endpoint_ipv4 ON endpoints (network, ipv4) WHERE ipv4 IS NOT NULL AND phase <> 'deleting';
    CREATE UNIQUE INDEX endpoint_ipv6 ON endpoints (network, ipv6) WHERE ipv6 IS NOT NULL AND phase <> 'deleting';

    CREATE TABLE host_settings (       -- switches of the host that weft changed, as it found them
        path   TEXT PRIMARY KEY,
        found  TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
)
