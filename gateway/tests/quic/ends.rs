//! How sessions end: in words where there is time for them, and always with a name.

use dialhome_proto::code::CloseCode;

use crate::Scene;
use crate::client::Peer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_arrives_before_the_connection_is_closed_and_a_frame_that_is_none_is_named() {
    let mut scene = Scene::start().await;
    let gateway = scene.gateway();
    let mut peer = Peer::greet(gateway, &scene.key).await;
    // A record of no bytes.
    peer.send.write_all(&[0, 0]).await.unwrap();
    let (code, closed) = peer.closed().await;
    assert_eq!(code, CloseCode::BAD_RECORD);
    assert_eq!(closed, "closed by peer: done (code 0)");

    let first = Peer::greet(gateway, &scene.key).await;
    let mut second = Peer::greet(gateway, &scene.key).await;
    assert_eq!(first.closed().await.0, CloseCode::SUPERSEDED);
    second.alive().await;
    scene.bench.json(&["device", "remove", "victim"]).await;
    assert_eq!(second.closed().await.0, CloseCode::REMOVED);
    scene.nothing_stays().await;
}
