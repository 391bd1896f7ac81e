-- A data directory of format 1, as version 0.1 wrote it: two devices, one update.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) STRICT, WITHOUT ROWID;
CREATE TABLE device (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE device_secret (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE TABLE device_state (id TEXT PRIMARY KEY, revision INTEGER NOT NULL, connected INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE image (name TEXT PRIMARY KEY, digest TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX image_digest ON image (digest);
CREATE TABLE update_intent (id TEXT PRIMARY KEY, device TEXT NOT NULL, image TEXT NOT NULL, deadline_ms INTEGER NOT NULL,
  revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE update_state (id TEXT PRIMARY KEY, device TEXT NOT NULL, open INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT,
  revision INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE INDEX update_open ON update_state (device) WHERE open = 1;
CREATE INDEX update_by_device ON update_state (device);
CREATE INDEX update_outcome ON update_state (state, reason);
CREATE TABLE event (seq INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT, body TEXT NOT NULL) STRICT;
CREATE INDEX event_device ON event (device, seq);
INSERT INTO meta (key, value) VALUES ('hold', '0'), ('starts', '2');
INSERT INTO device_state VALUES ('board-1', 4, 1, '{"generation":8589934593,"hello":{"transport":"tcp","peer":"127.0.0.1:4711","network":"loopback","link":"ethernet","client":"agent","hardware":1,"wake_s":0,"battery_percent":null,"signal_dbm":null,"temperature_c":null,"trust_epoch":1,"gateways_epoch":0,"last_task":0,"key_handle":"0123456789abcdef","components":[{"component":0,"version":"1.0","counter":1,"digest":null,"digest_from":"unknown","boot_reason":"power_on","trial":null,"revert":"swap","slot_size":65536}]},"last_contact":"2026-05-04T03:02:01.234Z","last_disconnect":{"at":"2026-05-04T03:02:00.5Z","reason":"lost"},"connected":true,"air_sent":12345,"air_received":678}');
INSERT INTO device_state VALUES ('board-2', 1, 0, '{"generation":0,"hello":null,"last_contact":null,"last_disconnect":null,"connected":false,"air_sent":0,"air_received":0}');
INSERT INTO update_intent VALUES ('0000000000000001', 'board-1', 'lamp@1', 4102444800000, 1, '{"update":"0000000000000001","device":"board-1","image":"lamp@1","digest":"","manifest_digest":"","component":0,"size":1000,"created":"2026-05-04T03:02:01Z","deadline":"2100-01-01T00:00:00Z","downgrade":false,"max_bytes":3000,"cancel_requested":null,"abandoned":null,"replaced_by":null}');
INSERT INTO update_state VALUES ('0000000000000001', 'board-1', 1, 'queued', NULL, 1, '{"state":"queued","reason":null,"detail":null,"revert":"swap","counters":{"committed":0,"sent":0,"resent":0,"sessions":0},"changed":"2026-05-04T03:02:01Z","heard":false,"overdue":null,"paused":false,"later":[]}');
PRAGMA user_version = 1;
