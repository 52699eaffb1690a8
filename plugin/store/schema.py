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
    """
    CREATE TABLE pools (
        number   INTEGER PRIMARY KEY,
        id       TEXT NOT NULL UNIQUE,  -- PoolId: all that Docker sends back
        space    TEXT NOT NULL,
        name     TEXT NOT NULL,
        version  INTEGER NOT NULL CHECK (version IN (4, 6)),
        first    BLOB NOT NULL,         -- packed address; of one space and name no two overlap
        last     BLOB NOT NULL,
        network  TEXT REFERENCES networks (id) ON DELETE SET NULL,  -- weft's own, not another driver's
        cursor   BLOB,                  -- the last address that weft chose
        made     REAL NOT NULL,         -- seconds since 1970
        UNIQUE (space, name, version, first)
    ) STRICT;
    CREATE INDEX pools_of_network ON pools (network);

    CREATE TABLE leases (
        pool     INTEGER NOT NULL REFERENCES pools (number) ON DELETE CASCADE,
        address  BLOB NOT NULL,
        kind     TEXT NOT NULL CHECK (kind IN ('gateway', 'reserved', 'container')),
        made     REAL NOT NULL,
        PRIMARY KEY (pool, address)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX gateways ON leases (pool) WHERE kind = 'gateway';

    CREATE TABLE gaps (                 -- the runs of addresses without a lease: the next free one is found in one step
        pool   INTEGER NOT NULL REFERENCES pools (number) ON DELETE CASCADE,
        first  BLOB NOT NULL,
        last   BLOB NOT NULL,
        PRIMARY KEY (pool, first)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE ports (                -- host ports that are published, and so claimed
        id         INTEGER PRIMARY KEY,
        endpoint   TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
        network    TEXT NOT NULL,
        transport  TEXT NOT NULL CHECK (transport IN ('tcp', 'udp', 'sctp')),
        version    INTEGER NOT NULL CHECK (version IN (4, 6)),
        host       TEXT,                -- NULL: every address of the host
        first      INTEGER NOT NULL,
        last       INTEGER NOT NULL,
        container_first  INTEGER NOT NULL,
        loopback   INTEGER NOT NULL,    -- clients of 127.0.0.0/8 can use it
        live       INTEGER NOT NULL,    -- by `weft port add`, not by Docker
        closing    INTEGER NOT NULL DEFAULT 0  -- claimed still, wanted no longer
    ) STRICT;
    CREATE INDEX ports_of_endpoint ON ports (endpoint);
    CREATE INDEX loopback_ports ON ports (network) WHERE loopback;

    CREATE VIRTUAL TABLE port_claims USING rtree_i32 (id, first, last, lane_low, lane_high);
    CREATE TRIGGER port_unclaimed AFTER DELETE ON ports BEGIN
        DELETE FROM port_claims WHERE id = OLD.id;
    END;
    """,
    """
    ALTER TABLE networks ADD COLUMN apart INTEGER NOT NULL DEFAULT 0;       -- its containers do not reach each other
    ALTER TABLE networks ADD COLUMN attached INTEGER NOT NULL DEFAULT 0;    -- endpoints on it, counted by the triggers
    UPDATE networks SET attached = (SELECT count(*) FROM endpoints WHERE network = networks.id);
    CREATE TRIGGER endpoint_attached AFTER INSERT ON endpoints BEGIN
        UPDATE networks SET attached = attached + 1 WHERE id = NEW.network;
    END;
    CREATE TRIGGER endpoint_detached AFTER DELETE ON endpoints BEGIN
        UPDATE networks SET attached = attached - 1 WHERE id = OLD.network;
    END;

    ALTER TABLE ports ADD COLUMN routed INTEGER NOT NULL DEFAULT 0;  -- open at the container's address, no host port

    CREATE TABLE links (                -- what Docker's links open where containers are kept apart
        endpoint   TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
        target     TEXT NOT NULL REFERENCES endpoints (id) ON DELETE CASCADE,
        address    TEXT NOT NULL,       -- of the target
        transport  TEXT NOT NULL CHECK (transport IN ('tcp', 'udp', 'sctp')),
        first      INTEGER NOT NULL,
        last       INTEGER NOT NULL,
        PRIMARY KEY (endpoint, target, address, transport, first)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX links_to ON links (target);

    -- intent: NetworkRow's model and settings; EndpointRow's model, ports and settings
    UPDATE networks SET intent = json_array(
        json(json_extract(intent, '$[0]')), json_object('interface_prefix', json_extract(intent, '$[1]')));
    UPDATE endpoints SET intent = json_insert(intent, '$[2]', json('{}'));
    """,
    """
    ALTER TABLE networks ADD COLUMN vni INTEGER;   -- of its tunnel: one segment is one network
    ALTER TABLE networks ADD COLUMN zone INTEGER;  -- of conntrack, where the host is not on it
    CREATE UNIQUE INDEX network_vni ON networks (vni) WHERE vni IS NOT NULL;
    CREATE UNIQUE INDEX network_zone ON networks (zone) WHERE zone IS NOT NULL;

    CREATE TABLE subnets_now (          -- of networks: the claim that no two with a gateway overlap
        network  TEXT NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
        version  INTEGER NOT NULL CHECK (version IN (4, 6)),
        first    BLOB NOT NULL,         -- packed address
        last     BLOB NOT NULL,
        gateway  INTEGER NOT NULL,      -- the network has one in it
        PRIMARY KEY (network, version, first)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO subnets_now SELECT network, version, first, last, 1 FROM subnets;
    DROP TABLE subnets;
    ALTER TABLE subnets_now RENAME TO subnets;
    CREATE UNIQUE INDEX gateway_subnets ON subnets (version, first) WHERE gateway;

    -- the key's columns first: else SQLite 3.40.1's quick_check finds NULLs where there are none
    CREATE TABLE peers (                -- other hosts, to which networks with a tunnel go on
        network  TEXT NOT NULL,         -- '': every one
        address  TEXT NOT NULL,
        made_by  TEXT NOT NULL CHECK (made_by IN ('setting', 'option', 'command', 'docker')),
        version  INTEGER NOT NULL CHECK (version IN (4, 6)),
        PRIMARY KEY (network, address, made_by)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER peers_of_network AFTER DELETE ON networks BEGIN
        DELETE FROM peers WHERE network = OLD.id;
    END;
    """,
    """
    ALTER TABLE networks ADD COLUMN number INTEGER;   -- on Open vSwitch: tells networks of this host apart
    CREATE UNIQUE INDEX network_numbers ON networks (number) WHERE number IS NOT NULL;
    ALTER TABLE endpoints ADD COLUMN slot INTEGER;    -- on Open vSwitch: its number among its network's ports
    CREATE UNIQUE INDEX endpoint_slots ON endpoints (network, slot) WHERE slot IS NOT NULL;
    """,
    """
    ALTER TABLE networks ADD COLUMN tunnel TEXT;      -- its kind and UDP port, as vxlan/4789: one backend has both
    UPDATE networks SET tunnel =
        json_extract(intent, '$[0].tunnel.kind') || '/' || json_extract(intent, '$[0].tunnel.port')
        WHERE vni IS NOT NULL;
    CREATE INDEX network_tunnels ON networks (tunnel) WHERE tunnel IS NOT NULL;

    CREATE TABLE peer_numbers (         -- tells peers of this host apart: each address has one, as long as it is a peer
        address  TEXT PRIMARY KEY,
        number   INTEGER NOT NULL UNIQUE
    ) STRICT, WITHOUT ROWID;
    INSERT INTO peer_numbers SELECT address, row_number() OVER (ORDER BY address) FROM peers GROUP BY address;
    CREATE TRIGGER peer_unnumbered AFTER DELETE ON peers
    WHEN NOT EXISTS (SELECT 1 FROM peers WHERE address = OLD.address) BEGIN
        DELETE FROM peer_numbers WHERE address = OLD.address;
    END;
    CREATE INDEX peer_addresses ON peers (address);
    """,
)
