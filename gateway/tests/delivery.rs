//! One real gateway in this process, one real agent beside it: an image from push to confirmed.

use dialhome_gateway::image::container::{Head, Origin};
use dialhome_gateway::image::sign::{Description, sign};
use dialhome_gateway::image::source::{Format, Source};
use dialhome_gateway::image::store::ImageStore;
use dialhome_gateway::session::{self, Gateway, Listeners};
use dialhome_gateway::store::{NewDevice, Push, Store};
use dialhome_proto::manifest::TrialBudget;
use ed25519_dalek::SigningKey;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agent_program() -> std::path::PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_dialhome")).with_file_name("dialhome-agent");
    assert!(
        beside.exists(),
        "{} is missing: run `cargo build --workspace` first",
        beside.display()
    );
    beside
}

/// As `[agent] quic` of the board: over TCP and over QUIC.
const TRANSPORTS: [&str; 2] = ["off", "only"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_to_a_real_agent_ends_confirmed_on_the_bytes_that_were_signed() {
    for quic in TRANSPORTS {
        delivered(quic).await;
    }
}

async fn delivered(quic: &str) {
    let _ = tracing_subscriber::fmt()
        .with_env_filter("debug")
        .try_init();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = Store::open(&data).unwrap();
    let images = Arc::new(ImageStore::open(&data).unwrap());
    let key = SigningKey::from_bytes(&[7; 32]);
    let any = "127.0.0.1:0".parse().unwrap();
    let listeners = Listeners {
        tcp: session::bind(any).unwrap(),
        quic: Some(session::bind_quic(any).unwrap()),
    };
    let address = match (quic, &listeners.quic) {
        ("only", Some(udp)) => udp.local_addr().unwrap(),
        _ => listeners.tcp.local_addr().unwrap(),
    };
    let provisioned = store
        .add_device(NewDevice {
            id: "board-1".into(),
            product: "lamp".into(),
            trust_keys: vec![key.verifying_key().to_bytes()],
            gateways: vec![address.to_string()],
        })
        .await
        .unwrap();
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let config = folder.path().join("board-1.toml");
    std::fs::write(
        &config,
        format!(
            "id = \"board-1\"\nproduct = \"lamp\"\nkey = \"{}\"\ngateways = [\"{address}\"]\npins = [\"{}\"]\n\n[trust]\nepoch = 1\nthreshold = 1\nkeys = [\"{}\"]\n\n[agent]\nquic = \"{quic}\"\n\n[reconnect]\nfirst_ms = 20\nmax_ms = 1000\n",
            hex(&*provisioned.key),
            store.quic_pin(),
            hex(key.verifying_key().as_bytes()),
        ),
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
    let image: Vec<u8> = (0..1_500_000_u32)
        .map(|byte| byte.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let about = Description {
        product: "lamp".into(),
        version: "1.0".into(),
        component: 0,
        counter: 5,
        floor: 0,
        hardware: 0..=u16::MAX,
        devices: Vec::new(),
        security: false,
        trial: TrialBudget {
            boots: 0,
            dials: 0,
            awake_s: 0,
        },
        requires: Vec::new(),
    };
    let manifest = sign(&image, &about, std::slice::from_ref(&key)).unwrap();
    let source = Source {
        name: "lamp.bin".into(),
        format: Format::Raw,
        size: image.len() as u64,
        sha256: dialhome_gateway::image::source::digest(&image),
    };
    let origin = Origin {
        source,
        check: None,
    };
    let head = Head {
        manifest,
        origins: vec![origin],
    };
    images.put(&image).unwrap();
    store
        .add_image(head.record(dialhome_gateway::store::now()), false)
        .await
        .unwrap();
    let gateway = Gateway::new(store.clone(), images).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(session::serve(gateway, listeners, async {
        let _ = stopped.await;
    }));
    let state = folder.path().join("state");
    let _agent = Agent(
        Command::new(agent_program())
            .arg("--config")
            .arg(&config)
            .arg("--state")
            .arg(&state)
            .spawn()
            .unwrap(),
    );
    let pushed = store
        .push(Push {
            device: "board-1".into(),
            image: "lamp@1.0".into(),
            deadline_s: 3600,
            replace: false,
            downgrade: false,
            max_bytes: None,
        })
        .await
        .unwrap();
    let update = dialhome_proto::id::UpdateId::from_hex(&pushed.update.update).unwrap();
    for _ in 0..600 {
        let doc = store.update_doc(update).await.unwrap();
        if ["confirmed", "failed", "reverted", "declined"].contains(&doc.state.as_str()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let doc = store.update_doc(update).await.unwrap();
    assert_eq!(doc.state, "confirmed", "{doc:?}");
    assert_eq!(std::fs::read(state.join("current")).unwrap(), image);
    let device = store.device_doc("board-1").await.unwrap();
    let transport = if quic == "only" { "quic" } else { "tcp" };
    assert_eq!(device.transport.as_deref(), Some(transport));
    let _ = stop.send(());
    serving.await.unwrap().unwrap();
}
