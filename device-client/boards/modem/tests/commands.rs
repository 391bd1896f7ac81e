//! The emulator itself: each command, its limits, its pace, each fault by order.

use std::time::Duration;

use dialhome_modem::{Config, Counts, Event, Faults, Kind, Modem, Request, byte_time};

const MS: Duration = Duration::from_millis(1);

/// A modem, and the time it is.
struct Talk {
    modem: Modem,
    now: Duration,
}

impl Talk {
    /// A modem that has a network.
    fn new(config: Config) -> Self {
        let mut talk = Self::with(config, Faults::none());
        talk.wait(2_000);
        talk
    }

    fn with(config: Config, faults: Faults) -> Self {
        Self {
            modem: Modem::new(config, faults),
            now: Duration::ZERO,
        }
    }

    /// Lets time pass; what the modem says meanwhile.
    fn wait(&mut self, ms: u32) -> String {
        let until = self.now + ms * MS;
        let mut said = Vec::new();
        loop {
            said.extend(self.modem.uart_out(self.now));
            match self.modem.next_at().filter(|at| *at <= until) {
                Some(at) => self.now = at.max(self.now),
                None => break,
            }
        }
        self.now = until;
        said.extend(self.modem.uart_out(self.now));
        String::from_utf8_lossy(&said).into_owned()
    }

    fn say(&mut self, bytes: &[u8]) {
        self.modem.uart_in(bytes, self.now);
    }

    /// The answer to a command: its lines without the empty ones.
    fn ask(&mut self, command: &str) -> Vec<String> {
        self.say(command.as_bytes());
        self.say(b"\r");
        lines(&self.wait(1_000))
    }

    /// Carries an order out.
    fn order(&mut self, order: &str) {
        let order = order.parse().expect("an order");
        assert_eq!(self.modem.order(order, self.now), "ok");
    }

    fn network(&mut self, event: Event) {
        self.modem.network(event, self.now);
    }

    fn requests(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.modem.poll_request()).collect()
    }

    /// A connection on socket 0; its key.
    fn connected(config: Config) -> (Self, u32) {
        let mut talk = Self::new(config);
        for command in ["ATE0", "AT+CMEE=1", "AT+UPSDA=0,3", "AT+USOCR=6"] {
            assert!(talk.ask(command).contains(&"OK".to_owned()), "{command}");
        }
        talk.say(b"AT+USOCO=0,\"127.0.0.1\",4433\r");
        assert_eq!(talk.wait(100), "");
        let requests = talk.requests();
        let [Request::Connect { key, address, port }] = requests.as_slice() else {
            panic!("{requests:?}");
        };
        assert_eq!((address.as_str(), *port), ("127.0.0.1", 4433));
        talk.network(Event::Connected(*key));
        assert_eq!(lines(&talk.wait(100)), ["OK"]);
        let key = *key;
        (talk, key)
    }
}

fn lines(text: &str) -> Vec<String> {
    text.split(['\r', '\n'])
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn echo_is_on_until_it_is_switched_off() {
    let mut talk = Talk::new(Config::default());
    talk.say(b"AT\r");
    assert_eq!(talk.wait(100), "AT\r\r\nOK\r\n");
    assert_eq!(talk.ask("ATE0"), ["ATE0", "OK"]);
    assert_eq!(talk.ask("at"), ["OK"]);
    assert_eq!(talk.ask("rubbish AT+CSQ"), ["+CSQ: 17,99", "OK"]);
    assert_eq!(talk.ask("no command"), [""; 0]);
}

#[test]
fn errors_are_said_as_the_mode_says() {
    let mut talk = Talk::new(Config::default());
    talk.ask("ATE0");
    for command in [
        "AT+NONSENSE",
        "AT+CMEE=3",
        "AT+CMEE=x",
        "AT+USOCR=17",
        "AT+USOCR",
        "AT+UPSD=0,1,internet",
        "AT+UPSD=0,1,\"internet",
        "AT+USOCO=0,\"127.0.0.1\",4433",
        "AT+CREG=3",
        "AT+IPR=12345",
        "AT+CSQ=1",
    ] {
        assert_eq!(talk.ask(command), ["ERROR"], "{command}");
    }
    assert_eq!(talk.ask("AT+CMEE=1"), ["OK"]);
    assert_eq!(talk.ask("AT+NONSENSE"), ["+CME ERROR: 100"]);
    assert_eq!(talk.ask("AT+USOCL=0"), ["+CME ERROR: 3"]);
    assert_eq!(talk.ask("AT+CMEE=2"), ["OK"]);
    assert_eq!(
        talk.ask("AT+USOCL=0"),
        ["+CME ERROR: operation not allowed"]
    );
    assert_eq!(talk.ask("AT+CMEE?"), ["+CMEE: 2", "OK"]);
}

#[test]
fn questions_are_answered() {
    let mut talk = Talk::new(Config::default());
    talk.ask("ATE0");
    for (command, answer) in [
        ("AT+CPIN?", "+CPIN: READY"),
        ("AT+CREG?", "+CREG: 0,1"),
        ("AT+CGREG?", "+CGREG: 0,1"),
        ("AT+CEREG?", "+CEREG: 0,1"),
        ("AT+COPS?", "+COPS: 0,0,\"Emulated Mobile\",2"),
        ("AT+UPSND=0,8", "+UPSND: 0,8,0"),
        ("AT+UDCONF=1", "+UDCONF: 1,0"),
        ("AT+IPR?", "+IPR: 0"),
    ] {
        assert_eq!(talk.ask(command), [answer, "OK"]);
    }
}

#[test]
fn registration_comes_and_goes() {
    let config = Config {
        register: 1_500 * MS,
        start: 3_000 * MS,
        ..Config::default()
    };
    let mut talk = Talk::with(config, Faults::none());
    talk.ask("ATE0");
    assert_eq!(talk.ask("AT+CGREG=1"), ["OK", "+CGREG: 1"]);
    talk.order("drop_registration 5000");
    assert_eq!(lines(&talk.wait(10)), ["+CGREG: 2"]);
    assert_eq!(talk.ask("AT+CGREG?"), ["+CGREG: 1,2", "OK"]);
    assert_eq!(talk.ask("AT+CSQ"), ["+CSQ: 99,99", "OK"]);
    assert_eq!(talk.ask("AT+COPS?"), ["+COPS: 0", "OK"]);
    assert_eq!(talk.ask("AT+UPSDA=0,3"), ["ERROR"]);
    assert_eq!(lines(&talk.wait(5_000)), ["+CGREG: 1"]);
}

#[test]
fn context_needs_the_right_access_point() {
    let mut talk = Talk::new(Config {
        apn: "iot.example".to_owned(),
        ..Config::default()
    });
    talk.ask("ATE0");
    assert_eq!(talk.ask("AT+UPSDA=0,3"), ["ERROR"]);
    assert_eq!(talk.ask("AT+UPSD=0,1,\"iot.example\""), ["OK"]);
    assert_eq!(talk.ask("AT+UPSD=0,6,1"), ["OK"]);
    assert_eq!(talk.ask("AT+UPSDA=0,3"), ["OK", "+UUPSDA: 0,\"10.0.0.1\""]);
    assert_eq!(talk.ask("AT+UPSDA=0,3"), ["ERROR"], "it is active");
    assert_eq!(talk.ask("AT+UPSND=0,8"), ["+UPSND: 0,8,1", "OK"]);
    assert_eq!(
        talk.ask("AT+UDNSRN=0,\"LocalHost\""),
        ["+UDNSRN: \"127.0.0.1\"", "OK"]
    );
    assert_eq!(talk.ask("AT+UDNSRN=0,\"nowhere\""), ["ERROR"]);
    talk.order("drop_context");
    assert_eq!(lines(&talk.wait(10)), ["+UUPSDD: 0"]);
    assert_eq!(talk.ask("AT+UPSDA=0,4"), ["ERROR"]);
}

#[test]
fn there_are_seven_sockets() {
    let mut talk = Talk::new(Config::default());
    talk.ask("ATE0");
    for number in 0..7 {
        assert_eq!(
            talk.ask("AT+USOCR=6"),
            [format!("+USOCR: {number}"), "OK".to_owned()]
        );
    }
    assert_eq!(talk.ask("AT+USOCR=6"), ["ERROR"]);
    assert_eq!(talk.ask("AT+USOCL=3"), ["OK"]);
    assert_eq!(talk.ask("AT+USOCL=3"), ["ERROR"]);
    assert_eq!(talk.ask("AT+USOCL=7"), ["ERROR"]);
    assert_eq!(talk.ask("AT+USOCR=6"), ["+USOCR: 3", "OK"]);
}

#[test]
fn connection_that_fails_says_why() {
    let mut talk = Talk::new(Config::default());
    talk.ask("ATE0");
    talk.ask("AT+UPSDA=0,3");
    talk.ask("AT+USOCR=6");
    talk.say(b"AT+USOCO=0,\"localhost\",1\r");
    talk.wait(100);
    let [Request::Connect { key, .. }] = talk.requests()[..] else {
        panic!("no request");
    };
    assert_eq!(talk.ask("AT"), [""; 0], "the line is busy");
    talk.network(Event::Failed(key, 111));
    assert_eq!(lines(&talk.wait(100)), ["ERROR", "OK"]);
    assert_eq!(talk.ask("AT+USOCTL=0,1"), ["+USOCTL: 0,1,111", "OK"]);
    // Nobody answers: the modem gives up by itself, and the socket is gone.
    talk.say(b"AT+USOCO=0,\"127.0.0.1\",1\r");
    assert_eq!(talk.wait(19_900), "");
    assert_eq!(lines(&talk.wait(1_000)), ["ERROR"]);
    assert_eq!(talk.ask("AT+USOCL=0"), ["ERROR"]);
    assert_eq!(talk.ask("AT+USOCR=6"), ["+USOCR: 0", "OK"]);
    assert_eq!(talk.ask("AT+USOCO=0,\"nowhere\",1"), ["ERROR"]);
    // Asynchronously the line stays free.
    assert_eq!(talk.ask("AT+USOCO=0,\"127.0.0.1\",1,1"), ["OK"]);
    assert_eq!(talk.ask("AT+USOCTL=0,10"), ["+USOCTL: 0,10,2", "OK"]);
    let key = match talk.requests().last() {
        Some(Request::Connect { key, .. }) => *key,
        other => panic!("{other:?}"),
    };
    talk.network(Event::Connected(key));
    assert_eq!(lines(&talk.wait(10)), ["+UUSOCO: 0,0"]);
}

#[test]
fn write_takes_1024_bytes_behind_the_prompt() {
    let (mut talk, key) = Talk::connected(Config::default());
    for command in [
        "AT+USOWR=0,0",
        "AT+USOWR=0,1025",
        "AT+USOWR=1,5",
        "AT+USOWR=0",
    ] {
        assert!(talk.ask(command)[0].starts_with("+CME ERROR"), "{command}");
    }
    talk.say(b"AT+USOWR=0,1024\r");
    assert_eq!(talk.wait(100), "\r\n@");
    // Bytes that would be a command elsewhere.
    let mut data = vec![b'\r'; 1024];
    data[..8].copy_from_slice(b"AT+USOCL");
    talk.say(&data[..1000]);
    assert_eq!(talk.wait(5_000), "");
    talk.say(&data[1000..]);
    assert_eq!(lines(&talk.wait(100)), ["+USOWR: 0,1024", "OK"]);
    assert_eq!(talk.requests(), [Request::Send { key, bytes: data }]);
    // Without hex mode text may be given in the command.
    assert_eq!(talk.ask("AT+USOWR=0,2,\"hi\""), ["+USOWR: 0,2", "OK"]);
}

#[test]
fn write_takes_512_bytes_in_hex() {
    let (mut talk, key) = Talk::connected(Config::default());
    assert_eq!(talk.ask("AT+UDCONF=1,1"), ["OK"]);
    assert_eq!(talk.ask("AT+USOWR=0,3,\"00fFa5\""), ["+USOWR: 0,3", "OK"]);
    let bytes = vec![0, 255, 0xA5];
    assert_eq!(talk.requests(), [Request::Send { key, bytes }]);
    for command in [
        "AT+USOWR=0,2,\"00fFa5\"",
        "AT+USOWR=0,1,\"0g\"",
        "AT+USOWR=0,1,\"0\"",
    ] {
        assert_eq!(talk.ask(command), ["+CME ERROR: 3"], "{command}");
    }
    let most = format!("AT+USOWR=0,512,\"{}\"", "AB".repeat(512));
    assert_eq!(talk.ask(&most), ["+USOWR: 0,512", "OK"]);
    let more = format!("AT+USOWR=0,513,\"{}\"", "AB".repeat(513));
    assert!(talk.ask(&more)[0].starts_with("+CME ERROR"));
    assert_eq!(talk.ask("AT+USORD=0,513"), ["+CME ERROR: 3"]);
}

#[test]
fn read_gives_what_is_there() {
    let (mut talk, key) = Talk::connected(Config::default());
    assert_eq!(talk.ask("AT+USORD=0,0"), ["+USORD: 0,0", "OK"]);
    assert_eq!(talk.ask("AT+USORD=0,5"), ["+USORD: 0,0,\"\"", "OK"]);
    talk.network(Event::Data(key, b"hello \"world\"".to_vec()));
    assert_eq!(lines(&talk.wait(10)), ["+UUSORD: 0,13"]);
    assert_eq!(talk.requests(), [Request::More(key)]);
    assert_eq!(talk.ask("AT+USORD=0,0"), ["+USORD: 0,13", "OK"]);
    assert_eq!(talk.ask("AT+USORD=0,5"), ["+USORD: 0,5,\"hello\"", "OK"]);
    assert_eq!(talk.ask("AT+UDCONF=1,1"), ["OK"]);
    assert_eq!(talk.ask("AT+USORD=0,2"), ["+USORD: 0,2,\"2022\"", "OK"]);
    assert_eq!(talk.ask("AT+UDCONF=1,0"), ["OK"]);
    assert_eq!(
        talk.ask("AT+USORD=0,1024"),
        ["+USORD: 0,6,\"world\"\"", "OK"]
    );
    assert_eq!(talk.ask("AT+USORD=0,1025"), ["+CME ERROR: 3"]);
}

#[test]
fn full_receive_buffer_holds_the_network_back() {
    let (mut talk, key) = Talk::connected(Config {
        receive_buffer: 2048,
        ..Config::default()
    });
    talk.network(Event::Data(key, vec![1; 1024]));
    assert_eq!(talk.requests(), [Request::More(key)]);
    talk.network(Event::Data(key, vec![2; 1024]));
    assert_eq!(talk.requests(), []);
    talk.ask("AT+USORD=0,1000");
    assert_eq!(talk.requests(), []);
    talk.ask("AT+USORD=0,24");
    assert_eq!(talk.requests(), [Request::More(key)]);
}

#[test]
fn full_send_buffer_refuses_and_says_why() {
    let (mut talk, key) = Talk::connected(Config {
        send_buffer: 10,
        ..Config::default()
    });
    assert_eq!(talk.ask("AT+USOWR=0,6,\"123456\""), ["+USOWR: 0,6", "OK"]);
    assert_eq!(talk.ask("AT+USOWR=0,6,\"123456\""), ["+CME ERROR: 3"]);
    assert_eq!(talk.ask("AT+USOCTL=0,1"), ["+USOCTL: 0,1,11", "OK"]);
    talk.network(Event::Sent(key, 6));
    assert_eq!(talk.ask("AT+USOWR=0,6,\"123456\""), ["+USOWR: 0,6", "OK"]);
}

#[test]
fn end_of_a_connection_is_said_when_all_is_read() {
    let (mut talk, key) = Talk::connected(Config::default());
    talk.network(Event::Data(key, b"bye".to_vec()));
    talk.network(Event::Ended(key));
    assert_eq!(lines(&talk.wait(10)), ["+UUSORD: 0,3"]);
    assert_eq!(talk.ask("AT+USOWR=0,1,\"x\""), ["+CME ERROR: 3"]);
    assert_eq!(talk.ask("AT+USOCTL=0,10"), ["+USOCTL: 0,10,7", "OK"]);
    assert_eq!(
        talk.ask("AT+USORD=0,9"),
        ["+USORD: 0,3,\"bye\"", "OK", "+UUSOCL: 0"]
    );
    assert_eq!(talk.ask("AT+USORD=0,9"), ["+CME ERROR: 3"]);
}

#[test]
fn restart_is_silent_and_forgets() {
    let (mut talk, key) = Talk::connected(Config::default());
    assert_eq!(talk.ask("AT+CFUN=16"), ["OK"]);
    assert_eq!(talk.requests(), [Request::Close(key)]);
    assert_eq!(talk.ask("AT"), [""; 0]);
    talk.wait(3_000);
    assert_eq!(talk.ask("AT"), ["AT", "OK"], "the echo is on again");
    assert_eq!(talk.ask("AT+CMEE?"), ["AT+CMEE?", "+CMEE: 0", "OK"]);
    assert_eq!(talk.modem.counts().starts, 2);
}

#[test]
fn bytes_and_answers_take_their_time() {
    let mut talk = Talk::with(
        Config {
            baud: 9600,
            latency: 20 * MS,
            ..Config::default()
        },
        Faults::none(),
    );
    // ATE0\r is 5 bytes, its echo 5 more at the same time, and the answer has 6.
    talk.say(b"ATE0\r");
    let byte = byte_time(9600);
    let asked = byte * 5;
    let mut first = None;
    let mut last = Duration::ZERO;
    while let Some(at) = talk.modem.next_at().filter(|at| *at < 900 * MS) {
        talk.now = at;
        if talk.modem.uart_out(at).ends_with(b"\n") {
            first.get_or_insert(at);
            last = at;
        }
    }
    assert_eq!(first, Some(asked + 20 * MS + byte * 2));
    assert_eq!(last, asked + 20 * MS + byte * 6);
}

#[test]
fn orders_do_what_they_say() {
    let (mut talk, key) = Talk::connected(Config::default());
    talk.order("error 2");
    assert_eq!(talk.ask("AT"), ["+CME ERROR: 3"]);
    assert_eq!(talk.ask("AT"), ["+CME ERROR: 3"]);
    assert_eq!(talk.ask("AT"), ["OK"]);
    talk.order("silent");
    assert_eq!(talk.ask("AT"), [""; 0]);
    talk.order("rubbish");
    let rubbish = talk.ask("AT");
    assert!(
        !rubbish.is_empty() && !rubbish.contains(&"OK".to_owned()),
        "{rubbish:?}"
    );
    assert_eq!(talk.ask("AT"), ["OK"]);
    talk.order("garbage 20");
    assert!(talk.wait(10).chars().count() >= 10);
    talk.order("lose 2");
    assert_eq!(talk.ask("ATAT"), ["OK"], "AT was lost");
    talk.order("freeze 4000");
    assert_eq!(talk.ask("AT"), [""; 0]);
    assert_eq!(lines(&talk.wait(4_000)), ["OK"]);
    talk.order("mute");
    assert_eq!(talk.ask("AT+CMEE=2"), [""; 0]);
    talk.order("unmute");
    assert_eq!(talk.ask("AT+CMEE?"), ["+CMEE: 2", "OK"], "it had heard");
    talk.order("lose_urcs 1");
    talk.network(Event::Data(key, b"a".to_vec()));
    talk.network(Event::Data(key, b"b".to_vec()));
    assert_eq!(lines(&talk.wait(10)), ["+UUSORD: 0,2"]);
    talk.requests();
    talk.order("stall 5000");
    talk.network(Event::Data(key, b"c".to_vec()));
    assert_eq!(talk.ask("AT+USOWR=0,1,\"x\""), ["+USOWR: 0,1", "OK"]);
    assert_eq!(talk.requests(), []);
    assert_eq!(lines(&talk.wait(5_000)), ["+UUSORD: 0,3"]);
    let bytes = b"x".to_vec();
    let sent = Request::Send { key, bytes };
    assert_eq!(talk.requests(), [sent, Request::More(key)]);
    talk.order("close_socket 0");
    assert_eq!(
        talk.ask("AT+USORD=0,9"),
        ["+USORD: 0,3,\"abc\"", "OK", "+UUSOCL: 0"]
    );
    let Counts {
        up, down, faults, ..
    } = talk.modem.counts();
    assert_eq!((up, down), (1, 3));
    assert!(faults >= 12);
}

#[test]
fn cut_power_abandons_connections() {
    let (mut talk, key) = Talk::connected(Config::default());
    talk.order("cut_power 2000");
    assert_eq!(talk.requests(), [Request::Abandon(key)]);
    talk.wait(4_500);
    assert_eq!(talk.ask("AT"), [""; 0], "off for 2 s, starting for 3");
    assert_eq!(talk.ask("AT"), ["AT", "OK"]);
    talk.order("hang");
    talk.wait(100_000);
    assert_eq!(talk.ask("AT"), [""; 0]);
    talk.modem.reset(talk.now);
    talk.wait(3_000);
    assert_eq!(talk.ask("AT"), ["AT", "OK"]);
}

#[test]
fn unasked_lines_come_at_awkward_moments() {
    let kinds = [(Kind::UrcInAnswer, 1000), (Kind::UrcAfterPrompt, 1000)];
    let mut talk = Talk::with(Config::default(), Faults::only(3, &kinds));
    talk.wait(2_000);
    talk.say(b"AT+CSQ\r");
    let said = lines(&talk.wait(100));
    assert_eq!((said.len(), said[0].as_str()), (5, "AT+CSQ"));
    assert_eq!((said[2].as_str(), said[4].as_str()), ("+CSQ: 17,99", "OK"));
    talk.ask("AT+USOCR=6");
    talk.say(b"AT+USOWR=0,1\r");
    let said = talk.wait(100);
    let (_, behind) = said.split_once("\r\n@").expect("a prompt");
    assert!(!lines(behind).is_empty());
}

#[test]
fn answers_are_split_in_the_middle() {
    let mut talk = Talk::with(Config::default(), Faults::only(3, &[(Kind::Split, 1000)]));
    talk.wait(2_000);
    talk.ask("ATE0");
    talk.say(b"AT+COPS?\r");
    let (mut pieces, mut whole) = (0, String::new());
    for _ in 0..2_000 {
        let said = talk.wait(1);
        pieces += u32::from(!said.is_empty());
        whole += &said;
    }
    assert!(pieces > 2);
    assert_eq!(lines(&whole), ["+COPS: 0,0,\"Emulated Mobile\",2", "OK"]);
}
