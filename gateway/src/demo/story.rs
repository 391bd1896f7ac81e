//! What happens in the demo, in order.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::DemoError;
use super::firmware::{Firmware, digest_of};
use super::process::Process;
use super::relay::{Action, Cut, Direction, Faults, Relay, Stats};
use super::site::{Board, Cli, Programs, Site, SiteError, text};
use super::view::View;

/// The boards' ids.
pub(super) const BOARDS: [&str; 3] = ["board-1", "board-2", "board-3"];
const PRODUCT: &str = "demo";
const VERSION: &str = "1.0.0";
const IMAGE: &str = "demo@1.0.0";

/// Boards that start and find their gateway are online well within this.
const ONLINE_WITHIN: Duration = Duration::from_secs(30);
/// What a waiting push is given; the demo's own deadline comes first.
const PUSH_WAIT: &str = "110s";
/// Without faults a transfer takes about this long, whatever the image's size.
const TRANSFER_S: u64 = 5;
/// A silent mapping ends by RST after this: a real one would make the board wait
/// for its ping, which no demo has time for.
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// What befalls each board's link, at which percentage of the image's size in
/// bytes relayed to the board.
const LINK_FAULTS: [&[(u64, Action)]; 3] = [
    &[
        (12, Action::Cut(Cut::Reset)),
        (30, Action::Stall(Duration::from_millis(500))),
        (55, Action::Cut(Cut::Reset)),
        (80, Action::Cut(Cut::Close)),
    ],
    &[
        (20, Action::Cut(Cut::Silent)),
        (75, Action::Cut(Cut::Reset)),
    ],
    &[
        (15, Action::Cut(Cut::HalfOpen)),
        (35, Action::Cut(Cut::Reset)),
        (90, Action::Cut(Cut::Reset)),
    ],
];
/// The agent that is killed, and when, as above.
const AGENT_KILLED: (usize, u64) = (1, 45);
/// The board by whose progress the gateway is killed, and when.
const GATEWAY_KILLED: (usize, u64) = (2, 60);

/// Everything that runs. Dropping it ends all of it.
struct Stage {
    site: Site,
    relays: Vec<Relay>,
    boards: Vec<Board>,
    agents: Vec<Process>,
    size: u64,
    digest: String,
}

/// Plays the whole demo in `root`.
pub(super) async fn tell(
    root: &Path,
    programs: Programs,
    image: &Path,
    view: &View,
) -> Result<(), DemoError> {
    let began = Instant::now();
    let firmware = Firmware::open(image).await?;
    view.say(format!("Dialhome demo in {}", root.display()));
    view.say(format!(
        "Image: {}; {}",
        firmware.path.display(),
        firmware.treatment()
    ));
    let mut stage = Stage::set(root, programs, &firmware, view).await?;

    let following = tokio::spawn(view.clone().follow(stage.site.cli(), stage.size));
    let played = stage.play(view).await;
    following.abort();
    let updates = played?;

    view.finish();
    let report = stage.report(&updates).await?;
    view.say(report);
    view.say(format!("\nDone in {} s.", began.elapsed().as_secs()));
    stage.end().await
}

impl Stage {
    /// Gateway, key, signed image, and three boards online, each behind a relay of its own.
    async fn set(
        root: &Path,
        programs: Programs,
        firmware: &Firmware,
        view: &View,
    ) -> Result<Self, DemoError> {
        let mut site = Site::new(root, programs)?;
        site.start_gateway().await?;
        site.make_key().await?;
        let cli = site.cli();
        let (signed, key) = (text(&root.join("demo.dhi")), text(&site.key()));
        let source = text(&firmware.path);
        let segment = firmware.segment.map(|address| format!("{address:#010X}"));
        let mut sign = vec![
            "image",
            "sign",
            &source,
            "--product",
            PRODUCT,
            "--version",
            VERSION,
        ];
        sign.extend(["--key", &key, "--out", &signed]);
        if let Some(segment) = &segment {
            view.say(format!(
                "Its parts lie far from each other; sending the largest, at {segment}"
            ));
            sign.extend(["--segment", segment]);
        }
        cli.json(&sign).await?;
        cli.json(&["image", "add", &signed]).await?;
        let image = cli.run(&["image", "show", IMAGE]).await?;
        let (size, digest) = match (&image.json["size"], &image.json["digest"]) {
            (Value::Number(size), Value::String(digest)) => {
                (size.as_u64().unwrap_or(0), digest.clone())
            }
            _ => {
                let (command, output) = (image.command, image.stdout + &image.stderr);
                return Err(SiteError::Output {
                    command,
                    what: "size and digest".to_owned(),
                    output,
                }
                .into());
            }
        };
        view.say(format!(
            "Signed and added as {IMAGE}: {size} bytes, SHA-256 {digest}"
        ));

        let mut stage = Self {
            site,
            relays: Vec::new(),
            boards: Vec::new(),
            agents: Vec::new(),
            size,
            digest,
        };
        for (number, id) in BOARDS.into_iter().enumerate() {
            stage.add_board(number, id, firmware).await?;
        }
        stage.all_online().await?;
        view.say(format!(
            "{} boards dialled home through relays that play carrier NAT",
            BOARDS.len()
        ));
        Ok(stage)
    }

    async fn add_board(
        &mut self,
        number: usize,
        id: &str,
        firmware: &Firmware,
    ) -> Result<(), DemoError> {
        let faults = Faults {
            seed: number as u64,
            idle_timeout: Some(Duration::from_secs(20)),
            segment: Some(1..8192),
            merge: Some(Duration::from_millis(1)),
            rate: Some((self.size / TRANSFER_S).clamp(16 * 1024, 16 << 20)),
            dead_after: DEAD_AFTER,
            ..Faults::default()
        };
        let relay = Relay::start(self.site.listen(), faults)
            .await
            .map_err(SiteError::io("a relay"))?;
        let folder = self.site.root().join("boards").join(id);
        // A window of a sixteenth of the image, so that a cut shows what resuming saves.
        let window = (self.size / 16)
            .next_power_of_two()
            .clamp(8 * 1024, 256 * 1024);
        let settings = format!(
            "[agent]\nping_s = 5\nwindow = {window}\n\n[reconnect]\nfirst_ms = 20\nmax_ms = 500\n\n{}",
            firmware.commands(&folder, &self.digest)
        );
        let gateway = relay.address().to_string();
        let board = self
            .site
            .add_board(id, PRODUCT, &gateway, &settings)
            .await?;
        self.agents.push(self.site.start_agent(&board)?);
        self.boards.push(board);
        self.relays.push(relay);
        Ok(())
    }

    async fn all_online(&mut self) -> Result<(), DemoError> {
        let cli = self.site.cli();
        let online = async {
            for id in BOARDS {
                while cli.json(&["device", "show", id]).await?["online"] != Value::Bool(true) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            Ok::<_, SiteError>(())
        };
        let overdue = SiteError::Overdue {
            what: "a session of every board".to_owned(),
            within: ONLINE_WITHIN,
            look: self.site.root().join("logs"),
        };
        tokio::select! {
            online = timeout(ONLINE_WITHIN, online) => Ok(online.unwrap_or(Err(overdue))?),
            error = all_run(self.agents.iter_mut().chain(self.site.gateway())) => Err(error.into()),
        }
    }

    /// Pushes to all boards at once and makes trouble until all are confirmed.
    /// Gives the updates' ids, in the order of the boards.
    async fn play(&mut self, view: &View) -> Result<Vec<String>, DemoError> {
        view.say(format!(
            "Pushing to all {} at once, while links are cut and programs killed:",
            BOARDS.len()
        ));
        for (relay, faults) in self.relays.iter().zip(LINK_FAULTS) {
            for (percent, action) in faults {
                relay.arm(Direction::ToBoard, self.size * percent / 100, *action);
            }
        }
        let mut pushes = JoinSet::new();
        for (number, id) in BOARDS.into_iter().enumerate() {
            let cli = self.site.cli();
            pushes.spawn(async move { Ok::<_, DemoError>((number, push(&cli, id).await?)) });
        }
        let all_confirmed = async {
            let mut updates = vec![String::new(); BOARDS.len()];
            while let Some(push) = pushes.join_next().await {
                // A push that panicked is a fault of the demo itself.
                let (number, update) =
                    push.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
                updates[number] = update;
            }
            Ok(updates)
        };
        tokio::select! {
            updates = all_confirmed => updates,
            error = self.make_trouble(view) => Err(error),
        }
    }

    /// Kills and restarts an agent and the gateway when it is their time, and then
    /// watches that nothing ends by itself. Returns only with an error.
    async fn make_trouble(&mut self, view: &View) -> DemoError {
        match self.kill_in_turn(view).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn kill_in_turn(&mut self, view: &View) -> Result<std::convert::Infallible, DemoError> {
        let base: Vec<u64> = self
            .relays
            .iter()
            .map(|relay| relay.stats().to_board)
            .collect();
        let (mut agent_due, mut gateway_due) = (true, true);
        loop {
            let relayed = |(board, percent): (usize, u64)| {
                let (from, size) = (base[board], self.size);
                self.relays[board]
                    .wait_until(move |stats| stats.to_board - from >= size * percent / 100)
            };
            let kill_agent = tokio::select! {
                biased;
                error = all_run(self.agents.iter_mut().chain(self.site.gateway())) => return Err(error.into()),
                _ = relayed(AGENT_KILLED), if agent_due => true,
                _ = relayed(GATEWAY_KILLED), if gateway_due => false,
            };
            if kill_agent {
                agent_due = false;
                let board = self.boards[AGENT_KILLED.0].clone();
                let agent = self.agents.remove(AGENT_KILLED.0);
                agent
                    .kill9()
                    .await
                    .map_err(SiteError::io("an agent could not be killed"))?;
                view.say(format!(
                    "  kill -9 {}'s agent, and start it again",
                    board.id
                ));
                self.agents
                    .insert(AGENT_KILLED.0, self.site.start_agent(&board)?);
            } else {
                gateway_due = false;
                self.site.kill_gateway().await?;
                view.say("  kill -9 the gateway, and start it again");
                self.site.start_gateway().await?;
            }
        }
    }

    /// What was cut, what it cost, and where to look. Checks the boards' files first.
    async fn report(&self, updates: &[String]) -> Result<String, DemoError> {
        let cli = self.site.cli();
        let mut lines = vec!["\nAll three boards are confirmed:".to_owned()];
        for ((board, relay), update) in self.boards.iter().zip(&self.relays).zip(updates) {
            let installed = self
                .site
                .root()
                .join("boards")
                .join(&board.id)
                .join("firmware");
            let untrue = |problem| DemoError::Untrue {
                board: board.id.clone(),
                problem,
            };
            let digest = digest_of(&installed).map_err(|error| {
                untrue(format!("{} cannot be read: {error}", installed.display()))
            })?;
            if digest != self.digest {
                return Err(untrue(format!(
                    "{} has SHA-256 {digest}",
                    installed.display()
                )));
            }
            let device = cli.json(&["device", "show", &board.id]).await?;
            let running = &device["components"][0];
            if running["digest"] != self.digest.as_str() {
                return Err(untrue(format!(
                    "the gateway has it running {}",
                    running["digest"]
                )));
            }
            let update = cli.json(&["update", "show", update]).await?;
            lines.push(format!(
                "  {}  runs {}… ({}); {} sessions; {}; {} of {} bytes were sent twice",
                board.id,
                &self.digest[..16],
                running["digest_from"].as_str().unwrap_or("unknown"),
                update["sessions"],
                cuts(&relay.stats()),
                update["resent"],
                self.size,
            ));
        }
        lines.push(format!(
            "  and kill -9 struck {}'s agent and the gateway, in the middle of the transfer",
            BOARDS[AGENT_KILLED.0]
        ));
        lines.push(
            "\nWhere to look next: `dialhome demo --keep` leaves its directory; there\n  \
             dialhome serve --data DIR/data            runs this gateway again, and\n  \
             dialhome --socket DIR/data/admin.sock device log board-1\n  \
             is a board's history; DIR/logs/ has what every process said.\n  \
             README.md walks through the same with a board of yours."
                .to_owned(),
        );
        Ok(lines.join("\n"))
    }

    /// Ends every process, and waits until each has ended.
    async fn end(mut self) -> Result<(), DemoError> {
        const PATIENCE: Duration = Duration::from_secs(5);
        for agent in self.agents.drain(..) {
            agent
                .stop(PATIENCE)
                .await
                .map_err(SiteError::io("an agent could not be ended"))?;
        }
        self.site.stop_gateway(PATIENCE).await?;
        Ok(())
    }
}

/// Runs one push to its end, over restarts of the gateway. Gives the update's id.
async fn push(cli: &Cli, board: &str) -> Result<String, DemoError> {
    let pushed = cli
        .run(&["push", board, IMAGE, "--wait", PUSH_WAIT])
        .await?;
    if pushed.code == Some(0)
        && let Some(update) = pushed.json["update"].as_str()
    {
        return Ok(update.to_owned());
    }
    let outcome = match (
        pushed.json["state"].as_str(),
        pushed.json["reason"].as_str(),
    ) {
        (Some(state), reason) => format!("{state}: {}", reason.unwrap_or("no reason given")),
        _ => format!("{}{}", pushed.stdout, pushed.stderr)
            .trim()
            .to_owned(),
    };
    Err(DemoError::NotConfirmed {
        board: board.to_owned(),
        code: pushed.code,
        outcome,
    })
}

/// Returns when one of the processes has ended by itself.
async fn all_run<'a>(processes: impl Iterator<Item = &'a mut Process>) -> SiteError {
    let mut processes: Vec<_> = processes.collect();
    let mut tick = interval(Duration::from_millis(200));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for process in &mut processes {
            match process.ended() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    return SiteError::Ended {
                        name: process.name().to_owned(),
                        status,
                        log: process.log().to_owned(),
                        tail: process.log_tail(12),
                    };
                }
                Err(source) => return SiteError::io(process.name())(source),
            }
        }
    }
}

/// The faults of one link in words.
fn cuts(stats: &Stats) -> String {
    let mut words = Vec::new();
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            words.push(format!("{count} {what}"));
        }
    };
    add(stats.resets, "cut by RST");
    add(stats.closes, "by FIN");
    add(stats.silenced, "gone silent");
    add(stats.half_opened, "half-open");
    add(stats.stalls, "stalled");
    if words.is_empty() {
        "never cut".to_owned()
    } else {
        words.join(", ")
    }
}
