//! What stands before fake-gcs-server: it keeps objects as Google does, but takes uploads by the JSON
//! interface alone, while our client, as Google advises for objects, speaks the XML one. A PUT is said
//! again as a JSON upload; everything else passes as it is.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{Reply, Request, Scripted};

/// Starts the front before the server at `upstream`.
pub async fn start(upstream: SocketAddr) -> Scripted {
    Scripted::start(move |request| async move {
        match request.method.as_str() {
            "PUT" => upload(upstream, &request).await,
            _ => Reply::Answer(exchange(upstream, &said_again(upstream, &request)).await),
        }
    })
    .await
}

/// `PUT /bucket/a%2Fb` becomes a multipart upload; its answer gets the ETag that the XML interface has.
async fn upload(upstream: SocketAddr, request: &Request) -> Reply {
    let mut parts = request.target.trim_start_matches('/').splitn(2, '/');
    let (bucket, name) = (parts.next().unwrap(), parts.next().unwrap());
    let matches = request.header("x-goog-if-generation-match");
    let condition = matches.map(|g| format!("&ifGenerationMatch={g}")).unwrap_or_default();
    let mut body = b"--cut\r\nContent-Type: application/json\r\n\r\n{}\r\n--cut\r\n\
        Content-Type: application/octet-stream\r\n\r\n"
        .to_vec();
    body.extend_from_slice(&request.body);
    body.extend_from_slice(b"\r\n--cut--\r\n");
    let mut bytes = format!(
        "POST /upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={name}{condition} HTTP/1.1\r\n\
         Host: {upstream}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: multipart/related; boundary=cut\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    let answer = String::from_utf8_lossy(&exchange(upstream, &bytes).await).into_owned();
    let status = answer.get(9..12).unwrap_or("502");
    let told = |key: &str| {
        let after = answer.split_once(&format!("\"{key}\":\"")).map_or("", |(_, after)| after);
        after.split('"').next().unwrap_or_default().to_owned()
    };
    let tag = format!("ETag: \"{}\"", told("etag"));
    let generation = format!("x-goog-generation: {}", told("generation"));
    match status {
        "200" => Reply::status("200 OK", &[&tag, &generation], ""),
        "412" => Reply::status("412 Precondition Failed", &[], ""),
        other => Reply::status(other, &[], ""),
    }
}

fn said_again(upstream: SocketAddr, request: &Request) -> Vec<u8> {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in &request.headers {
        if !matches!(name.as_str(), "host" | "connection") {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str(&format!("Host: {upstream}\r\nConnection: close\r\n\r\n"));
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(&request.body);
    bytes
}

async fn exchange(upstream: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(upstream).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}
