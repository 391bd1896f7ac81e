//! The report's page in a browser.

use super::{Files, SHORT};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The page after a browser has shown it, and what the browser's console said.
fn shown(page: &Path, profile: &Path) -> (String, String) {
    let child = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("chromium is installed, as .ci/packages says");
    let pid = child.id();
    let (send, ended) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(Duration::from_secs(120)) else {
        super::send(i32::try_from(pid).unwrap(), rustix::process::Signal::KILL);
        panic!("the browser did not end");
    };
    let output = output.expect("the browser's output");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let console = text(&output.stderr)
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect::<Vec<_>>()
        .join("\n");
    (text(&output.stdout), console)
}

#[test]
fn a_browser_shows_the_plots_and_asks_for_nothing_else() {
    let files = Files::new(SHORT);
    files.start().end().expect(0, &["PASSED"]);
    let profile = files.path("profile");
    let (dom, console) = shown(&files.path("report.html"), &profile);
    assert!(dom.contains("Passed"), "{dom}");
    assert_eq!(dom.matches("<figure>").count(), 8);
    // No transfer of this run was so short that its series have no two points.
    assert!(
        dom.matches("<svg").count() >= 7,
        "{}",
        dom.matches("<svg").count()
    );
    assert!(dom.contains("<polyline") && dom.contains("MiB/s"));
    for metric in ["confirmed_share", "gateway_rss_mib"] {
        assert!(dom.contains(metric), "{metric}");
    }
    assert_eq!(console, "");

    // The page's own policy refuses what is not in it, and the browser says so: that nothing
    // was said above means that nothing was asked for.
    let page = fs::read_to_string(files.path("report.html")).unwrap();
    for more in ["<img src=\"http://127.0.0.1:9/x\">", "<script>1</script>"] {
        let other = files.path("other.html");
        fs::write(&other, page.replace("</main>", &format!("{more}</main>"))).unwrap();
        let (_, console) = shown(&other, &profile);
        assert!(
            console.contains("Content Security Policy"),
            "{more}: {console}"
        );
    }
}
