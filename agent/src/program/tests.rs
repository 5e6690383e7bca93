//! The proxy against a UNIX server that speaks CONNECT and then HTTP, as a machine does.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

struct Guest {
    _dir: tempfile::TempDir,
    vsock: PathBuf,
}

impl Guest {
    fn upstream(&self) -> Upstream<'_> {
        Upstream {
            vsock: &self.vsock,
            client: "192.0.2.7".parse().unwrap(),
            scheme: "http",
            timeout: Duration::from_secs(5),
        }
    }
}

async fn program(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().to_string();
    Ok(match path.as_str() {
        "/echo" => {
            let headers = format!("{:?}", request.headers());
            Response::builder()
                .header("seen", headers)
                .header("keep-alive", "1")
                .body(Body::new(request.into_body()))
        }
        "/slow" => std::future::pending().await,
        "/drip" => {
            let pieces = futures_util::stream::unfold(0u8, |n| async move {
                tokio::time::sleep(Duration::from_millis(if n == 0 { 0 } else { 400 })).await;
                (n < 3).then(|| {
                    (
                        Ok::<_, Infallible>(Frame::data(Bytes::from(vec![n; 4]))),
                        n + 1,
                    )
                })
            });
            Ok(Response::new(Body::new(StreamBody::new(pieces))))
        }
        "/ws" => {
            let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
            Response::builder()
                .status(101)
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", accept)
                .body(Body::empty())
        }
        _ => Response::builder().status(404).body(Body::empty()),
    }
    .unwrap())
}

/// A machine whose guest serves [`program`].
fn guest() -> Guest {
    serve(|stream| async move {
        let service = service_fn(program);
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        connection.with_upgrades().await.ok();
    })
}

fn serve<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(BufReader<tokio::net::UnixStream>) -> F + Copy + Send + 'static,
) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let vsock = dir.path().join("vsock.sock");
    let listener = UnixListener::bind(&vsock).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                assert_eq!(line, "CONNECT 8080\n");
                stream.write_all(b"OK 8080\n").await.unwrap();
                serve(stream).await;
            });
        }
    });
    Guest { _dir: dir, vsock }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path)
        .header("host", "program.example")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn a_body_larger_than_any_buffer_goes_there_and_back() {
    let guest = guest();
    let body = vec![7u8; 9 << 20];
    let request = Request::post("http://elsewhere/echo")
        .header("host", "program.example")
        .header("connection", "close, x-hop")
        .header("x-hop", "1")
        .header("expect", "100-continue")
        .body(Body::from(body.clone()))
        .unwrap();
    let response = forward(guest.upstream(), request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("keep-alive").is_none());
    let seen = response.headers()["seen"].to_str().unwrap().to_owned();
    assert!(
        seen.contains("\"host\": \"program.example\"") && seen.contains("192.0.2.7"),
        "{seen}"
    );
    assert!(
        !seen.contains("x-hop") && !seen.contains("expect"),
        "{seen}"
    );
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        body
    );
}

#[tokio::test]
async fn an_answer_arrives_while_it_is_still_being_made() {
    let guest = guest();
    let begin = Instant::now();
    let response = forward(guest.upstream(), get("/drip")).await.unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, [0; 4].as_slice());
    assert!(
        begin.elapsed() < Duration::from_millis(390),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 8);
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_a_504() {
    let guest = guest();
    let upstream = Upstream {
        timeout: Duration::from_millis(100),
        ..guest.upstream()
    };
    let error = forward(upstream, get("/slow")).await.unwrap_err();
    assert!(matches!(error, ProgramError::Timeout(_)), "{error:?}");
    assert_eq!(error.status(), 504);
}

#[tokio::test]
async fn a_guest_that_is_not_there_or_talks_nonsense_is_a_502() {
    let gone = Guest {
        vsock: "/nonexistent/vsock.sock".into(),
        _dir: tempfile::tempdir().unwrap(),
    };
    assert!(matches!(
        forward(gone.upstream(), get("/")).await,
        Err(ProgramError::Connect(_))
    ));

    let dir = tempfile::tempdir().unwrap();
    let vsock = dir.path().join("vsock.sock");
    let listener = UnixListener::bind(&vsock).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let refusing = Guest { vsock, _dir: dir };
    let error = forward(refusing.upstream(), get("/")).await.unwrap_err();
    assert!(matches!(error, ProgramError::Connect(_)), "{error:?}");

    let silent = serve(|stream| async move { drop(stream) });
    let error = forward(silent.upstream(), get("/")).await.unwrap_err();
    assert!(matches!(error, ProgramError::Closed(_)), "{error:?}");
    assert_eq!(error.status(), 502);

    let nonsense =
        serve(|mut stream| async move { stream.write_all(b"hello\r\n\r\n").await.unwrap() });
    assert!(matches!(
        forward(nonsense.upstream(), get("/")).await,
        Err(ProgramError::Closed(_))
    ));

    let switching = serve(|mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 101 No\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let error = forward(switching.upstream(), get("/")).await.unwrap_err();
    assert_eq!(error.status(), 502, "{error:?}");
}

#[tokio::test]
async fn a_websocket_passes() {
    let guest = guest();
    let vsock = guest.vsock.clone();
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let vsock = vsock.clone();
        async move {
            let upstream = Upstream {
                vsock: &vsock,
                client: "192.0.2.7".parse().unwrap(),
                scheme: "http",
                timeout: Duration::from_secs(5),
            };
            forward(upstream, request).await.unwrap()
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });

    let (mut socket, response) = tokio_tungstenite::connect_async(format!("ws://{address}/ws"))
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    socket.close(None).await.unwrap();
}
