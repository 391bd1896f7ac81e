//! The program: a serial line over TCP, real connections, orders over a port.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use dialhome_device::modem::{Config as ModemConfig, Host, Modem, Sara};
use dialhome_device::transport::Transport;
use dialhome_modem::{Config, Options, Program};

/// Whatever takes longer has failed.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The serial line of a board in an emulator.
struct Uart {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl embedded_io::ErrorType for Uart {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, embedded_io::ErrorKind> {
        let mut buffer = [0; 512];
        if self.bytes.is_empty()
            && let Ok(len) = self.stream.read(&mut buffer)
        {
            self.bytes = buffer[..len].iter().rev().copied().collect();
        }
        Ok(!self.bytes.is_empty())
    }
}

impl embedded_io::Read for Uart {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, embedded_io::ErrorKind> {
        buffer[0] = self.bytes.pop().ok_or(embedded_io::ErrorKind::Other)?;
        Ok(1)
    }
}

impl embedded_io::Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, embedded_io::ErrorKind> {
        self.stream
            .write(bytes)
            .map_err(|_| embedded_io::ErrorKind::Other)
    }

    fn flush(&mut self) -> Result<(), embedded_io::ErrorKind> {
        Ok(())
    }
}

struct Clock(Instant);

impl Host for Clock {
    fn millis(&mut self) -> u32 {
        u32::try_from(self.0.elapsed().as_millis()).expect("a short test")
    }

    fn idle(&mut self) {
        // Rest, for the modem's sake.
        thread::sleep(Duration::from_micros(200));
    }
}

fn uart(program: &Program) -> Uart {
    let stream = TcpStream::connect(program.uart()).expect("the serial line");
    stream.set_nodelay(true).expect("an option");
    stream.set_nonblocking(true).expect("an option");
    Uart {
        stream,
        bytes: Vec::new(),
    }
}

/// Sends back what it gets; its address.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut writer = stream.try_clone().expect("another handle");
                // It ends when the modem closes.
                let _ = io::copy(&mut { stream }, &mut writer);
            });
        }
    });
    address
}

fn quick() -> Config {
    Config {
        latency: Duration::from_millis(1),
        start: Duration::from_millis(50),
        register: Duration::from_millis(50),
        context: Duration::from_millis(10),
        ..Config::default()
    }
}

fn receive(modem: &mut Modem<'_, Uart, Clock, Sara>, len: usize) -> Vec<u8> {
    let start = Instant::now();
    let mut all = Vec::new();
    while all.len() < len {
        let mut room = [0; 700];
        let len = modem.receive(&mut room).expect("an open connection");
        all.extend(&room[..len]);
        assert!(start.elapsed() < TIME_MAX, "{} bytes came", all.len());
    }
    all
}

#[test]
fn bytes_go_through_real_connections() {
    let program = Program::start(Options {
        config: quick(),
        ..Options::default()
    })
    .expect("a modem");
    let config = ModemConfig::new("internet");
    let mut buffer = [0; 256];
    let clock = Clock(Instant::now());
    let mut modem: Modem<'_, _, _> = Modem::new(uart(&program), clock, &config, &mut buffer);
    modem.connect(&echo()).expect("a connection");
    let bytes: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let len = modem.send(rest).expect("an open connection");
        rest = &rest[len..];
    }
    assert_eq!(receive(&mut modem, 3000), bytes);
    assert_eq!(program.counts().up, 3000);
    assert!(program.order("close_socket").starts_with("ok"));
    let start = Instant::now();
    while modem.receive(&mut [0; 9]).is_ok() {
        assert!(start.elapsed() < TIME_MAX, "the close was not seen");
    }
    assert!(modem.link_up());
    // Another life of the board, on the same modem.
    let clock = Clock(Instant::now());
    let mut modem: Modem<'_, _, _> = Modem::new(uart(&program), clock, &config, &mut []);
    modem.connect(&echo()).expect("a connection");
    modem.send(b"again").expect("an open connection");
    assert_eq!(receive(&mut modem, 5), b"again");
    assert_eq!(program.counts().connections, 2);
}

#[test]
fn only_allowed_addresses_are_reached() {
    for (allow, name) in [(None, "192.0.2.1:9"), (Some("192.0.2.2:9"), "192.0.2.2:8")] {
        let program = Program::start(Options {
            config: quick(),
            allow: allow.into_iter().map(str::to_owned).collect(),
            ..Options::default()
        })
        .expect("a modem");
        let config = ModemConfig::new("internet");
        let clock = Clock(Instant::now());
        let mut modem: Modem<'_, _, _> = Modem::new(uart(&program), clock, &config, &mut []);
        let start = Instant::now();
        assert!(modem.connect(name).is_err());
        assert!(modem.link_up());
        assert!(start.elapsed() < Duration::from_secs(14), "it was tried");
    }
}

#[test]
fn orders_are_taken_over_a_port_and_traced() {
    let folder = std::env::temp_dir().join(format!("dialhome-modem-{}", std::process::id()));
    let program = Program::start(Options {
        config: quick(),
        control: Some("127.0.0.1:0".to_owned()),
        trace: Some(folder.clone()),
        ..Options::default()
    })
    .expect("a modem");
    let control = TcpStream::connect(program.control().expect("a port")).expect("a connection");
    control.set_read_timeout(Some(TIME_MAX)).expect("an option");
    let mut answers = BufReader::new(control.try_clone().expect("another handle"));
    let mut order = |line: &str| {
        writeln!(&control, "{line}").expect("written");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        answer
    };
    assert_eq!(order("stall 10"), "ok\n");
    assert!(order("status").starts_with("ok commands=0 starts=1"));
    assert!(order("dance").starts_with("error: no order is called `dance`"));
    assert!(order("stall").starts_with("error: stall needs milliseconds"));
    assert_eq!(order("no_network"), "ok\n");
    let config = ModemConfig::new("internet");
    let clock = Clock(Instant::now());
    let mut modem: Modem<'_, _, _> = Modem::new(uart(&program), clock, &config, &mut []);
    assert!(modem.connect("localhost:1").is_err());
    let ports = [Some(program.uart()), program.control()];
    drop(program);
    let start = Instant::now();
    for port in ports.into_iter().flatten() {
        while TcpStream::connect(port).is_ok() {
            assert!(start.elapsed() < TIME_MAX, "{port} is still open");
        }
    }
    let trace = std::fs::read_to_string(&folder).expect("a trace");
    std::fs::remove_file(&folder).expect("removed");
    for line in [
        "fault: order NoNetwork(true)",
        "> ATE0",
        "< OK",
        "> AT+USOCO=0,\"localhost\",1",
    ] {
        assert!(trace.contains(line), "{line} is not in\n{trace}");
    }
}
