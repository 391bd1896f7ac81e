//! Whatever comes on the line, calls end in time and nothing panics.

use std::collections::VecDeque;
use std::convert::Infallible;

use dialhome_device::modem::{CALL_MS, Config, Host, Modem, Sara};
use dialhome_device::transport::Transport;
use proptest::prelude::*;

/// A line that says the same over and over, and a clock that goes on with every look.
struct Line {
    says: VecDeque<u8>,
    /// It never pauses.
    floods: bool,
    ready: bool,
}

impl embedded_io::ErrorType for Line {
    type Error = Infallible;
}

impl embedded_io::Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let byte = self.says.front().copied();
        if !self.says.is_empty() {
            self.says.rotate_left(1);
        }
        if let (Some(room), Some(byte)) = (buffer.first_mut(), byte) {
            *room = byte;
            return Ok(1);
        }
        Ok(0)
    }
}

impl embedded_io::ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        self.ready = !self.ready;
        Ok(!self.says.is_empty() && (self.floods || self.ready))
    }
}

impl embedded_io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

struct Clock(u32, u32);

impl Host for Clock {
    fn millis(&mut self) -> u32 {
        // A byte at 115,200 bits a second takes 87 microseconds.
        self.1 += 1;
        if self.1 >= 11 {
            self.1 = 0;
            self.0 = self.0.wrapping_add(1);
        }
        self.0
    }

    fn idle(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }
}

/// Pieces of what a modem says, whole, cut and made up.
fn speech() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => Just(b"\r\nOK\r\n".to_vec()),
        1 => Just(b"\r\nERROR\r\n".to_vec()),
        1 => Just(b"\r\n+CME ERROR: 3\r\n".to_vec()),
        1 => Just(b"\r\n@".to_vec()),
        1 => Just(b"\r\n+CGREG: 1,1\r\n".to_vec()),
        1 => Just(b"\r\n+COPS: 0,0,\"\xFF\xFEname\",2\r\n".to_vec()),
        1 => Just(b"\r\n+CSQ: 199,99\r\n".to_vec()),
        1 => Just(b"\r\n+UPSND: 0,8,1\r\n".to_vec()),
        1 => Just(b"\r\n+USOCR: 0\r\n".to_vec()),
        1 => Just(b"\r\n+USOWR: 0,5\r\n".to_vec()),
        1 => (0_u32..2000).prop_map(|len| format!("\r\n+USORD: 0,{len},\"").into_bytes()),
        1 => (0_u32..2000).prop_map(|len| format!("\r\n+UUSORD: 0,{len}\r\n").into_bytes()),
        1 => Just(b"\r\n+UUSOCL: 0\r\n".to_vec()),
        1 => Just(b"\"\r\n".to_vec()),
        2 => proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(word, 1..30).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_end_in_time(
        says in speech(),
        floods in any::<bool>(),
        hex in any::<bool>(),
        connect_async in any::<bool>(),
        start in any::<u32>(),
        ahead in 0_usize..100,
    ) {
        let config = Config { hex, connect_async, connect_ms: 20_000, ..Config::new("internet") };
        let mut buffer = vec![0; ahead];
        let line = Line { says: says.into(), floods, ready: false };
        let mut modem: Modem<'_, _, _, Sara> =
            Modem::new(line, Clock(start, 0), &config, &mut buffer);
        let mut then = start;
        let mut check = |modem: &mut Modem<'_, Line, Clock, Sara>, most: u32| {
            let now = modem.host().0;
            let time = now.wrapping_sub(then);
            then = now;
            prop_assert!(time <= most + 1_000, "{time} ms of {most}");
            Ok(())
        };
        for _ in 0..3 {
            let _ = modem.connect("gw.example:1");
            check(&mut modem, 20_000)?;
            for _ in 0..3 {
                let sent = modem.send(b"hello");
                prop_assert!(sent.is_err() || sent.is_ok_and(|len| len <= 5));
                check(&mut modem, CALL_MS)?;
                let mut room = [0; 50];
                let received = modem.receive(&mut room);
                prop_assert!(received.is_err() || received.is_ok_and(|len| len <= 50));
                check(&mut modem, CALL_MS)?;
                let facts = modem.facts();
                prop_assert!(facts.network.len() <= 32 && facts.signal_dbm <= -51);
            }
        }
        modem.close();
        check(&mut modem, CALL_MS)?;
    }
}
