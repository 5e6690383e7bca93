//! A program's life: uploaded, called, slow, broken, forgotten.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crn_tests::testbed::http::{self, get};
use crn_tests::testbed::outside::GREETING;
use crn_tests::testbed::products::root;
use crn_tests::testbed::steps::PROGRAM_DEADLINE;

use crate::{World, forget, host_label, static_ipv6};

pub fn upload_program(world: &mut World) -> Result<()> {
    world.program = world.network.upload_program(&world.runtime)?;
    Ok(())
}

pub fn program_answers(world: &mut World) -> Result<()> {
    let answer = world.network.call_program(&world.program, "/")?;
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    ensure!(text("hostname") == host_label(&world.program)?, "{answer}");
    ensure!(text("kernel").starts_with("6.12"), "{answer}");
    ensure!(text("ipv4").starts_with("172."), "{answer}");
    ensure!(
        text("ipv6") == static_ipv6(1, &world.program)?.to_string(),
        "{answer}"
    );
    ensure!(
        answer["variables"]["DEMO_NAME"] == "first-light",
        "{answer}"
    );
    Ok(())
}

pub fn request_is_whole(world: &mut World) -> Result<()> {
    let body = vec![b'x'; 3 << 20];
    let url = world
        .network
        .program_url(&world.program, "/echo?a=1&b=%20two");
    let answer = http::request(
        "PUT",
        &url,
        &[("x-mine", "kept"), ("content-type", "text/x-demo")],
        &body,
        PROGRAM_DEADLINE,
    )?;
    let seen = answer.json()?;
    ensure!(answer.status == 201, "{} {seen}", answer.status);
    ensure!(
        seen["method"] == "PUT" && seen["query"] == "a=1&b=%20two" && seen["length"] == body.len(),
        "{seen}"
    );
    ensure!(
        seen["headers"]["x-mine"] == "kept" && seen["headers"]["content-type"] == "text/x-demo",
        "{seen}"
    );
    ensure!(answer.header("x-demo") == ["kept"], "{:?}", answer.headers);
    ensure!(
        answer.header("set-cookie") == ["a=1", "b=2"],
        "{:?}",
        answer.headers
    );
    ensure!(
        answer.header("aleph-program-itemhash") == [world.program.as_str()],
        "{:?}",
        answer.headers
    );
    Ok(())
}

pub fn answer_streams(world: &mut World) -> Result<()> {
    let answer = get(&world.network.program_url(&world.program, "/stream"))?;
    ensure!(
        answer.text() == "part 0\npart 1\npart 2\npart 3\npart 4\n",
        "{}",
        answer.text()
    );
    Ok(())
}

pub fn own_404(world: &mut World) -> Result<()> {
    let answer = get(&world.network.program_url(&world.program, "/missing"))?;
    ensure!(
        answer.status == 404 && answer.text() == "<p>not here</p>",
        "{} {}",
        answer.status,
        answer.text()
    );
    ensure!(
        answer.header("content-type") == ["text/html"],
        "{:?}",
        answer.headers
    );
    Ok(())
}

pub fn host_name(world: &mut World) -> Result<()> {
    let host = format!("{}.example.org", host_label(&world.program)?);
    let answer = http::request(
        "GET",
        &format!("{}/", world.crn()),
        &[("host", &host)],
        &[],
        PROGRAM_DEADLINE,
    )?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    ensure!(
        answer.json()?["hostname"] == host_label(&world.program)?,
        "{}",
        answer.text()
    );
    Ok(())
}

pub fn program_internet(world: &mut World) -> Result<()> {
    let url = world.network.program_url(
        &world.program,
        &format!("/fetch?{}", world.outside.url_v4()),
    );
    let answer = get(&url)?;
    ensure!(
        answer.status == 200 && answer.json()?["text"] == GREETING,
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

pub fn slow_program(world: &mut World) -> Result<()> {
    let url = world.network.program_url(&world.program, "/slow?600");
    let answer = http::request("GET", &url, &[], &[], Duration::from_secs(300))?;
    ensure!(
        answer.status == 504 && answer.json()?["error"].is_string(),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}

pub fn program_exits(world: &mut World) -> Result<()> {
    let answer = get(&world.network.program_url(&world.program, "/exit"))?;
    ensure!(
        answer.status == 502 && answer.json()?["error"].is_string(),
        "{} {}",
        answer.status,
        answer.text()
    );
    world.network.call_program(&world.program, "/")?;
    let logs =
        world
            .network
            .client
            .run(&["program", "logs", &world.program, "--domain", &world.crn()])?;
    ensure!(logs.contains("leaving on request"), "{logs}");
    Ok(())
}

pub fn broken_program(world: &mut World) -> Result<()> {
    let code = root().join("target/e2e/broken");
    std::fs::create_dir_all(&code)?;
    std::fs::write(code.join("main.py"), "import no_such_module_here\n")?;
    world.network.client.run(&[
        "program",
        "upload",
        code.to_str().context("a path")?,
        "main:app",
        "--name",
        "broken",
        "--runtime",
        &world.runtime,
        "--compute-units",
        "1",
        "--memory",
        "512",
        "--skip-volume",
        "--skip-env-var",
        "--payment-chain",
        "ETH",
    ])?;
    let broken = world.network.newest("PROGRAM")?;
    ensure!(broken != world.program, "the client made no new program");
    let answer = http::request(
        "GET",
        &world.network.program_url(&broken, "/"),
        &[],
        &[],
        Duration::from_secs(240),
    )?;
    ensure!(
        answer.status == 503 && answer.json()?["error"].is_string(),
        "{} {}",
        answer.status,
        answer.text()
    );
    let logs = world
        .network
        .client
        .run(&["program", "logs", &broken, "--domain", &world.crn()])?;
    ensure!(logs.contains("no_such_module_here"), "{logs}");
    forget(world, &broken)
}

pub fn forget_program(world: &mut World) -> Result<()> {
    let program = world.program.clone();
    forget(world, &program)?;
    let answer = get(&world.network.program_url(&program, "/"))?;
    ensure!(
        matches!(answer.status, 404 | 410),
        "{} {}",
        answer.status,
        answer.text()
    );
    Ok(())
}
