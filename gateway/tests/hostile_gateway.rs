//! A gateway that has the board's key and breaks the protocol, or sends what nobody has
//! signed: the board says what is wrong, installs nothing, and takes the next good image.

mod support;

use dialhome_gateway::demo::relay::Faults;
use dialhome_gateway::link::{LcAead, Responder};
use dialhome_proto::code::{ByeReason, Reason, Statement};
use dialhome_proto::frame::{
    Activate, Chunk, DeviceFrame, GatewayFrame, Offer, Ping, ReadLog, Resume, Settled, Welcome,
};
use dialhome_proto::id::{Digest, UpdateId};
use dialhome_proto::link::{DeviceKey, FIRST_FLIGHT_LEN, MESSAGE_1_LEN, Preamble, Records};
use support::{BOARD, Bench, PATIENCE, random_bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const UPDATE: UpdateId = UpdateId([0x11; 8]);

/// The gateway's end of one session.
struct Session {
    stream: TcpStream,
    records: Records,
}

struct Fake {
    listener: TcpListener,
    responder: Responder,
    key: DeviceKey,
}

impl Fake {
    /// The board's next session, before Welcome.
    async fn meet(&self) -> Session {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (mut stream, _) = accepted.expect("the board dials").unwrap();
        let mut flight = [0; FIRST_FLIGHT_LEN];
        stream.read_exact(&mut flight).await.unwrap();
        let preamble = Preamble::decode(flight.first_chunk().unwrap()).unwrap();
        let message: &[u8; MESSAGE_1_LEN] = flight.last_chunk().unwrap();
        let checked = self.responder.check(&preamble, message, Some(&self.key));
        let accepted = checked.unwrap().reply().unwrap();
        stream.write_all(&accepted.answer).await.unwrap();
        let mut session = Session {
            stream,
            records: Records::new(&accepted.keys),
        };
        session
            .answer(|frame| matches!(frame, DeviceFrame::Hello(_)))
            .await;
        session
    }

    /// The next session, after Welcome, with what the outbox holds settled.
    async fn greet(&self) -> Session {
        let mut session = self.meet().await;
        session.send(welcome()).await;
        session
    }
}

fn welcome() -> Welcome {
    Welcome {
        time_s: 0,
        ping_s: 0,
    }
}

impl Session {
    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut record = vec![0; 2 + plaintext.len() + 16];
        record[2..2 + plaintext.len()].copy_from_slice(plaintext);
        let sealed = self.records.seal(&mut LcAead, plaintext.len(), &mut record);
        record.truncate(sealed.unwrap());
        record
    }

    async fn send<'a>(&mut self, frame: impl Into<GatewayFrame<'a>>) {
        let mut plaintext = vec![0; 16_000];
        let len = frame.into().encode(&mut plaintext).unwrap();
        self.send_plaintext(&plaintext[..len]).await;
    }

    async fn send_plaintext(&mut self, plaintext: &[u8]) {
        let record = self.seal(plaintext);
        self.stream.write_all(&record).await.unwrap();
    }

    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 2];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut header)).await;
        read.expect("a record or the end").ok()?;
        let mut record = vec![0; usize::from(u16::from_be_bytes(header))];
        self.stream.read_exact(&mut record).await.ok()?;
        Some(
            self.records
                .open(&mut LcAead, &mut record)
                .unwrap()
                .to_vec(),
        )
    }

    /// Reads on, over Progress, pings and acks, to the frame that is wanted.
    async fn answer(&mut self, wanted: impl Fn(&DeviceFrame<'_>) -> bool) {
        loop {
            let plaintext = self.next().await.expect("an answer");
            let frame = DeviceFrame::decode(&plaintext).unwrap();
            if wanted(&frame) {
                return;
            }
            assert!(
                matches!(
                    frame,
                    DeviceFrame::Progress(_) | DeviceFrame::Ping(_) | DeviceFrame::Ack(_)
                ),
                "not what was expected: {frame:?}"
            );
        }
    }

    async fn alive(&mut self) {
        self.send(Ping { nonce: 77 }).await;
        self.answer(|frame| matches!(frame, DeviceFrame::Pong(pong) if pong.nonce == 77))
            .await;
    }

    /// The board says Bye(protocol_error), and goes.
    async fn left(mut self, what: &str) {
        loop {
            let plaintext = self.next().await;
            let plaintext = plaintext.unwrap_or_else(|| panic!("{what}: no Bye"));
            if let DeviceFrame::Bye(bye) = DeviceFrame::decode(&plaintext).unwrap() {
                assert_eq!(bye.reason, ByeReason::PROTOCOL_ERROR, "{what}");
                return;
            }
        }
    }

    async fn declined(&mut self, offer: Offer<'_>, reason: Reason) {
        self.send(offer).await;
        self.answer(
            |frame| matches!(frame, DeviceFrame::Decline(decline) if decline.reason == reason),
        )
        .await;
    }

    /// Offers, and waits until the window is open at 0.
    async fn open(&mut self, offer: Offer<'_>) {
        self.send(offer).await;
        self.answer(
            |frame| matches!(frame, DeviceFrame::Accept(accept) if accept.image_offset == 0),
        )
        .await;
        self.answer(|frame| matches!(frame, DeviceFrame::Ack(ack) if ack.limit > 0))
            .await;
    }
}

fn chunk(offset: u32, bytes: &[u8]) -> Chunk<'_> {
    Chunk {
        offset,
        crc: crc32fast::hash(bytes).to_le_bytes(),
        flags: 1,
        bytes,
    }
}

fn is_ack(frame: &DeviceFrame<'_>, at: u32) -> bool {
    matches!(frame, DeviceFrame::Ack(ack) if ack.committed == at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_breaks_the_protocol_gets_a_reason_and_installs_nothing() {
    let mut bench = Bench::start().await;
    let board = bench.add_board("board", Faults::default(), BOARD).await;
    let image = bench.image("1.0", &random_bytes(1, 3_000)).await;
    let signed = std::fs::read(&image.signed).unwrap();
    let end = 6 + usize::from(u16::from_be_bytes([signed[4], signed[5]]));
    let manifest = &signed[6..end];
    let text = std::fs::read_to_string(&board.config).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("key = \""));
    let mut key = [0; 32];
    let line = line.unwrap().trim_end_matches('"');
    assert!(dialhome_proto::id::decode_hex(line, &mut key));
    let fake = Fake {
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        responder: Responder::default(),
        key: DeviceKey::new(key),
    };
    let real = bench.site.listen();
    let relay = bench.relay("board");
    relay.set_upstream(fake.listener.local_addr().unwrap());
    bench.start_agent("board");
    let offer = |manifest| Offer {
        update: UPDATE,
        group: 0,
        order: 0,
        component: 0,
        flags: 0,
        encoding: 0,
        base: None,
        payload_size: 3_000,
        manifest,
    };

    // Before Welcome, and Welcome twice.
    let mut session = fake.meet().await;
    session.send(Ping { nonce: 1 }).await;
    session.left("a Ping before Welcome").await;
    let mut session = fake.greet().await;
    session.send(welcome()).await;
    session.left("Welcome twice").await;

    // Records that are none.
    for (bytes, what) in [
        (vec![0, 0], "length 0"),
        (vec![0, 16, 1], "length 16"),
        (vec![0xFF, 0xFF], "oversized"),
        (
            vec![
                0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
            ],
            "noise",
        ),
    ] {
        let mut session = fake.greet().await;
        session.stream.write_all(&bytes).await.unwrap();
        session.left(what).await;
    }

    // Unknown numbers are answered; chunks that nobody waits for are dropped.
    let mut session = fake.greet().await;
    for number in [0x77, 0x48, 0x10] {
        session.send_plaintext(&[number, 1]).await;
        session
            .answer(
                |frame| matches!(frame, DeviceFrame::Unsupported(told) if told.number == number),
            )
            .await;
    }
    session.send(chunk(0, b"late")).await;
    session.alive().await;

    // As many requests for the log as fit: each answer is bounded, and the last one is answered.
    for request in 0..200 {
        let (lines, bytes) = (u16::MAX, u16::MAX);
        session
            .send(ReadLog {
                request,
                lines,
                bytes,
            })
            .await;
    }
    loop {
        let plaintext = session.next().await.expect("parts of the log");
        let Ok(DeviceFrame::LogPart(log)) = DeviceFrame::decode(&plaintext) else {
            panic!("no part of the log");
        };
        assert!(log.part <= log.parts && log.parts <= 8 && log.text.len() <= 768);
        if (log.request, log.part) == (199, log.parts) {
            break;
        }
    }
    session.alive().await;
    session.send_plaintext(&[0x01]).await;
    session.left("a malformed body").await;
    let mut session = fake.greet().await;
    session.send(Activate { update: UPDATE }).await;
    session.left("Activate without an image").await;

    // What nobody has signed, or not so.
    let mut session = fake.greet().await;
    let mismatch = Offer {
        payload_size: 2_999,
        ..offer(manifest)
    };
    session.declined(mismatch, Reason::SIZE_MISMATCH).await;
    let encoding = Offer {
        encoding: 7,
        ..offer(manifest)
    };
    session.declined(encoding, Reason::UNKNOWN_ENCODING).await;
    let component = Offer {
        component: 3,
        ..offer(manifest)
    };
    session.declined(component, Reason::WRONG_COMPONENT).await;
    let mut forged = manifest.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    session
        .declined(offer(&forged), Reason::BAD_SIGNATURE)
        .await;
    let mut forged = manifest.to_vec();
    forged[0] ^= 1;
    session.declined(offer(&forged), Reason::BAD_MANIFEST).await;
    session
        .send(Resume {
            update: UPDATE,
            group: 0,
            order: 0,
            component: 0,
            flags: 0,
            encoding: 0,
            base: None,
            payload_size: 3_000,
            manifest: Digest([9; 32]),
        })
        .await;
    session
        .answer(|frame| {
            matches!(frame, DeviceFrame::Decline(decline) if decline.reason == Reason::MANIFEST_UNKNOWN)
        })
        .await;

    // Chunks that are not the next ones.
    let bytes = &image.bytes;
    for (wrong, what) in [
        (chunk(1, &bytes[1..100]), "a gap"),
        (chunk(0, &[]), "an empty chunk"),
    ] {
        session.open(offer(manifest)).await;
        session.send(wrong).await;
        session.left(what).await;
        session = fake.greet().await;
    }
    session.open(offer(manifest)).await;
    let beyond = [bytes.as_slice(), b"x"].concat();
    session.send(chunk(0, &beyond)).await;
    session.left("beyond the size").await;

    // A wrong CRC is asked for again.
    let mut session = fake.greet().await;
    session.open(offer(manifest)).await;
    let mut wrong = chunk(0, &bytes[..1000]);
    wrong.crc[0] ^= 1;
    session.send(wrong).await;
    session
        .answer(|frame| matches!(frame, DeviceFrame::Nack(nack) if nack.offset == 0))
        .await;
    session.send(chunk(0, &bytes[..1000])).await;
    session.answer(|frame| is_ack(frame, 1000)).await;

    // Bytes that are not the signed ones, each chunk as sound as can be.
    let mut other = bytes[1000..].to_vec();
    other[1500] ^= 1;
    session.send(chunk(1000, &other)).await;
    session
        .answer(|frame| {
            matches!(frame, DeviceFrame::Report(report)
                if report.state == Statement::FAILED && report.reason == Reason::DIGEST_MISMATCH)
        })
        .await;
    session.send(Settled { sequence: 1 }).await;
    session.alive().await;
    session.send(Activate { update: UPDATE }).await;
    session.left("Activate after a failure").await;
    assert_eq!(bench.installed("board"), None);
    assert!(!board.state.join("current").exists());

    // The right gateway is back, and everything goes its way.
    bench.relay("board").set_upstream(real);
    drop(fake);
    bench.relay("board").cut_all();
    bench.online("board").await;
    bench.push("board", &image.name, &[]).await.confirmed();
    assert_eq!(bench.installed("board").as_deref(), Some(&*image.bytes));
}
