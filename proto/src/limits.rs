//! Every limit of the protocol (spec/limits.md states the arithmetic and who enforces each).

/// Longest ciphertext from board to gateway, in bytes.
pub const BOARD_RECORD_MAX: usize = 1024;
/// Least receive buffer that a board may declare: a full Offer fits. Bytes of ciphertext.
pub const RECEIVE_BUFFER_MIN: usize = 832;
/// Largest receive buffer that a board may declare. Bytes of ciphertext.
pub const RECEIVE_BUFFER_MAX: usize = 16_384;
/// Largest write unit of a board, in bytes: a chunk of one unit fits the least receive buffer.
pub const WRITE_UNIT_MAX: u32 = 768;
/// Least window, in bytes: one chunk of the smallest board.
pub const RECORD_WINDOW_MIN: u32 = 512;
/// Bytes that a record adds to its plaintext's ciphertext: the length.
pub const RECORD_HEADER: usize = 2;
/// The AEAD's tag, in bytes.
pub const TAG: usize = 16;
/// Bytes of a Chunk's plaintext that are not payload, at most.
pub const CHUNK_OVERHEAD: usize = 14;
/// Bytes of a Chunk's ciphertext that are not payload, at most.
pub const CHUNK_COST: u32 = 30;
/// Longest manifest, in bytes, signatures included.
pub const MANIFEST_MAX: usize = 768;
/// Longest gateways statement, in bytes, signatures included.
pub const STATEMENT_MAX: usize = 700;
/// Components of a board, at most.
pub const COMPONENTS_MAX: usize = 4;
/// Gateways in a board's list, at most.
pub const GATEWAYS_MAX: usize = 4;
/// Public keys in a TrustSet, at most.
pub const TRUST_KEYS_MAX: usize = 4;
/// Pins of gateway keys in a provisioning record, at most.
pub const PINS_MAX: usize = 4;
/// Signatures in a manifest or statement, at most.
pub const SIGNATURES_MAX: usize = 3;
/// Longest version text and client text, in bytes.
pub const VERSION_MAX: usize = 32;
/// Longest name of a device or product, in bytes.
pub const NAME_MAX: usize = 64;
/// Longest network name, in bytes.
pub const NETWORK_MAX: usize = 32;
/// Longest detail of a Report, in bytes.
pub const DETAIL_MAX: usize = 200;
/// Longest part of a longer text, in bytes of UTF-8.
pub const TEXT_PART_MAX: usize = 768;
/// Parts of a longer text, at most.
pub const TEXT_PARTS_MAX: u8 = 8;
/// Gateway: time for the last LogPart after ReadLog, in milliseconds.
pub const LOG_MS: u64 = 30_000;
/// First messages that the gateway remembers per handle, to refuse a replay.
pub const REPLAY_EPHEMERALS: usize = 8;
/// Time for preamble and handshake, in milliseconds.
pub const HANDSHAKE_MS: u64 = 30_000;
/// Time from the handshake to Hello, in milliseconds.
pub const HELLO_MS: u64 = 30_000;
/// Records in one direction before a session must end.
pub const RECORDS_MAX: u64 = 1 << 32;
/// Age at which a session must end, in milliseconds (30 days).
pub const SESSION_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Longest wait that a gateway may impose on a board, in seconds (24 h).
pub const RECONNECT_S_MAX: u32 = 24 * 3600;
/// Least and most ping interval that a board takes as advice, in seconds.
pub const PING_S: core::ops::RangeInclusive<u32> = 60..=6 * 3600;
/// Minimums of components in a TrustSet, at most.
pub const TRUST_MINIMUMS_MAX: usize = COMPONENTS_MAX;
/// Longest encoded TrustSet, in bytes: epoch 5, threshold 1, 4 keys 1 + 4 x 32, 4 minimums 1 + 4 x (1 + 10).
pub const TRUST_SET_LEN: usize =
    5 + 1 + (1 + TRUST_KEYS_MAX * 32) + (1 + TRUST_MINIMUMS_MAX * (1 + 10));
/// Devices that a manifest may be limited to, at most.
pub const MANIFEST_DEVICES_MAX: usize = 4;
/// Digests that an entry of a manifest may require, at most.
pub const REQUIRES_MAX: usize = 2;
/// Longest encoding of what a board keeps of a verified manifest, in bytes: two digests 2 x 32, component 1,
/// version 1 + 32, size 5, counter and floor 2 x 10, trial budget 1 + 3 + 5, epoch 5.
pub const REMEMBERED_LEN: usize = 2 * 32 + 1 + (1 + VERSION_MAX) + 5 + 2 * 10 + (1 + 3 + 5) + 5;
/// Least length of a gateway's HOST:PORT, in bytes.
pub const GATEWAY_MIN: usize = 3;
/// Longest HOST:PORT of a gateway, in bytes.
pub const GATEWAY_MAX: usize = 128;
/// The encoding of an offered payload that is the image itself.
pub const ENCODING_RAW: u8 = 0;
/// Boots without confirmation that a trial image has where its manifest says 0.
pub const TRIAL_BOOTS: u8 = 5;
/// Failed dials, while the link is up, that a trial image has where its manifest says 0.
pub const TRIAL_DIALS: u16 = 20;
/// Seconds awake that a trial image has where its manifest says 0 (24 h).
pub const TRIAL_AWAKE_S: u32 = 24 * 3600;
/// Least time that a board has for an Ack, in milliseconds.
pub const ACK_MS_MIN: u64 = 60_000;
/// Rate at which the ack deadline lets a window travel, in bytes per second.
pub const WINDOW_BYTES_PER_S: u64 = 2_000;
/// Time for the board's answer to Offer, Resume, Activate and Cancel, and between
/// two signs of life while it proves, erases or verifies, in milliseconds.
pub const ANSWER_MS: u64 = 60_000;
/// Time for the board's answer to Confirm, in milliseconds.
pub const CONFIRM_MS: u64 = 120_000;
/// Time from the board's `activating` to the end of its session, in milliseconds.
pub const RESTART_MS: u64 = 120_000;
/// Longest deferral that the gateway honours within a session, in seconds.
pub const DEFER_S_MAX: u32 = 24 * 3600;
/// Board: time between two Acks, or two Progress frames, in milliseconds.
pub const ACK_EVERY_MS: u64 = 10_000;
/// Board: time for Welcome after Hello, in milliseconds.
pub const WELCOME_MS: u64 = 60_000;
/// Board: least time for a Pong, in milliseconds.
pub const PONG_MS_MIN: u64 = 30_000;
/// Board: longest ping interval while an update is under way, in seconds.
pub const PING_TRANSFER_S: u32 = 30;
/// Board: bad read-backs of one unit before the update fails.
pub const BAD_READ_BACKS_MAX: u8 = 3;
/// Board: entries of the outbox.
pub const OUTBOX_MAX: usize = 4;
/// Board: bytes of a Report's detail that are kept in the journal.
pub const OUTBOX_DETAIL_MAX: usize = 96;
/// Board: attempts to activate or to revert before it gives up; a power cut within one
/// uses it up like a crash.
pub const BOOT_ATTEMPTS_MAX: u8 = 8;
/// Board: least wait after `superseded`, in milliseconds.
pub const SUPERSEDED_MS: u32 = 10 * 60 * 1000;
/// Board: time without a chunk after which a transfer stops, in milliseconds.
pub const CHUNK_MS: u64 = 10 * 60 * 1000;
/// Board: wait before the journal is handed again what it has refused, in milliseconds.
pub const STORE_AGAIN_MS: u64 = 60_000;
