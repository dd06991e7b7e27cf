//! Requests that are computed, and what is around them.

use std::io::{Read, Write};
use std::net::Shutdown;

use pi0_edge::rtc::{Guidance, PrefixSchedule, prefix_weights};
use pi0_edge::{Frame, InferOptions, MAX_NUM_STEPS, Noise, Observation, Policy};
use pi0_edge_serve::{Embodiment, Options};
use tungstenite::{Bytes, Message};

use crate::client::{Heard, Running, load, options};
use crate::messages::{Item, actions, observation, pixels, seeded};

/// The chunk of the observation in `messages`, computed here.
fn computed(policy: &mut Policy, options: &InferOptions<'_>) -> Vec<f32> {
    let (base, wrist) = (pixels(56, 40, 1), pixels(56, 56, 2));
    let images = [
        ("observation.images.base", Frame::new(&base, 56, 40).unwrap()),
        ("observation.images.wrist", Frame::new(&wrist, 56, 56).unwrap()),
    ];
    let state = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    let observation = Observation { images: &images, state: &state, prompt: Some("pick up the cube") };
    policy.infer(&observation, options).unwrap().as_slice().to_vec()
}

fn chunk(heard: Heard) -> Vec<f32> {
    match heard {
        Heard::Chunk(response) => actions(&response),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chunk_has_the_bits_that_the_policy_gives() {
    let server = Running::tiny();
    let mut policy = load("pi0-tiny");
    let mut client = server.client();
    let seed = |n| InferOptions { noise: Noise::Seed(n), ..InferOptions::default() };
    assert_eq!(chunk(client.ask(seeded(5))), computed(&mut policy, &seed(5)));
    // Without a seed: 0, then 1.
    for n in 0..2 {
        assert_eq!(chunk(client.ask(observation(&[]).pack())), computed(&mut policy, &seed(n)), "{n}");
    }

    let noise: Vec<f32> = (0..10 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    let given = InferOptions { noise: Noise::Given(&noise), num_steps: Some(3), ..InferOptions::default() };
    let want = computed(&mut policy, &given);
    for shape in [&[10, 32][..], &[1, 10, 32]] {
        let more = [("noise", Item::floats(shape, &noise)), ("num_steps", Item::Whole(3))];
        assert_eq!(chunk(client.ask(observation(&more).pack())), want);
    }

    let rest = want[7..].to_vec();
    let mut weights = vec![0.0; 10];
    prefix_weights(PrefixSchedule::Linear, 2, 6, &mut weights);
    let guidance = Some(Guidance {
        previous: &rest,
        prefix_weights: &weights,
        max_guidance_weight: 10.0,
        inference_delay: 2,
    });
    let more = [
        ("seed", Item::Whole(5)),
        ("prev_chunk_left_over", Item::floats(&[9, 7], &rest)),
        ("inference_delay", Item::Whole(2)),
        ("execution_horizon", Item::Whole(6)),
    ];
    let guided = chunk(client.ask(observation(&more).pack()));
    assert_eq!(guided, computed(&mut policy, &InferOptions { guidance, ..seed(5) }));
    assert_ne!(guided, computed(&mut policy, &seed(5)));
}

#[test]
fn images_may_come_with_the_colours_first_or_as_floats_and_names_in_every_spelling() {
    let server = Running::tiny();
    let mut client = server.client();
    let want = chunk(client.ask(seeded(5)));
    let wrist = pixels(56, 56, 2);
    let planes: Vec<u8> = (0..3).flat_map(|c| wrist.iter().skip(c).step_by(3).copied()).collect();
    // A little above, so that rounding down gives the byte back.
    let floats: Vec<f32> = wrist.iter().map(|b| ((f32::from(*b) + 0.01) / 255.0).min(1.0)).collect();
    let Item::Map(entries) = observation(&[("seed", Item::Whole(5))]) else { unreachable!() };
    for (key, image) in [
        ("observation/images/wrist", Item::bytes(&[3, 56, 56], planes)),
        ("observation.images.wrist", Item::floats(&[56, 56, 3], &floats)),
        ("images.wrist", Item::bytes(&[56, 56, 3], wrist.clone())),
        ("images", Item::Map(vec![("wrist".into(), Item::bytes(&[56, 56, 3], wrist.clone()))])),
    ] {
        let mut entries = entries.clone();
        entries.retain(|(known, _)| known != "observation/images/wrist");
        entries.push((key.into(), image));
        entries.push(("what_nobody_knows".into(), Item::Number(1.0)));
        entries.push(("noise".into(), Item::Nil));
        assert_eq!(chunk(client.ask(Item::Map(entries).pack())), want, "{key}");
    }
}

#[test]
fn a_robot_of_openpis_uses_its_own_names() {
    let image = |salt| Item::bytes(&[56, 56, 3], pixels(56, 56, salt));
    let state = Item::floats(&[7], &[0.1; 7]);
    let cases: [(Embodiment, Vec<(&str, Item)>); 3] = [
        (
            Embodiment::Libero,
            vec![
                ("observation/image", image(1)),
                ("observation/wrist_image", image(2)),
                ("observation/state", state.clone()),
            ],
        ),
        (
            Embodiment::Droid,
            vec![
                ("observation/exterior_image_1_left", image(1)),
                ("observation/wrist_image_left", image(2)),
                ("observation/joint_position", Item::floats(&[6], &[0.1; 6])),
                ("observation/gripper_position", Item::floats(&[1], &[0.1])),
            ],
        ),
        (
            Embodiment::Aloha,
            vec![
                (
                    "images",
                    Item::Map(vec![
                        ("cam_high".into(), image(1)),
                        ("cam_low".into(), image(7)),
                        ("cam_left_wrist".into(), image(2)),
                    ]),
                ),
                ("state", state),
            ],
        ),
    ];
    let mut chunks = Vec::new();
    for (embodiment, entries) in cases {
        let options = Options { embodiment: Some(embodiment), ..options() };
        let server = Running::start(load("pi0-openpi"), options);
        let mut entries: Vec<(String, Item)> = entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        entries.push(("prompt".into(), Item::Text("pick up the cube".into())));
        entries.push(("seed".into(), Item::Whole(1)));
        chunks.push(chunk(server.client().ask(Item::Map(entries).pack())));
    }
    assert!(chunks[0] == chunks[1] && chunks[1] == chunks[2], "the same pictures, the same state");
}

#[test]
fn pings_are_answered_while_a_chunk_is_computed() {
    let server = Running::tiny();
    let slow = observation(&[("num_steps", Item::Whole(MAX_NUM_STEPS as u64))]).pack();
    let mut first = server.client();
    (0..6).for_each(|_| first.send(slow.clone()));
    let mut second = server.client();
    second.send(slow);
    second.0.send(Message::Ping(Bytes::from_static(b"there?"))).unwrap();
    assert_eq!(second.hear(), Heard::Pong, "before the chunk");
    assert!(matches!(second.hear(), Heard::Chunk(_)));
    (0..6).for_each(|_| assert!(matches!(first.hear(), Heard::Chunk(_))));
}

#[test]
fn clients_take_turns_and_requests_ahead_are_answered_in_order() {
    let server = Running::tiny();
    let mut policy = load("pi0-tiny");
    let want: Vec<Vec<f32>> = (0..40)
        .map(|n| computed(&mut policy, &InferOptions { noise: Noise::Seed(n), ..InferOptions::default() }))
        .collect();
    let (server, want) = (&server, &want);
    std::thread::scope(|scope| {
        for client in 0..4u64 {
            scope.spawn(move || {
                let mut socket = server.client();
                // More than are taken ahead.
                let seeds: Vec<u64> = (client * 10..client * 10 + 10).collect();
                seeds.iter().for_each(|n| socket.send(seeded(*n)));
                for n in seeds {
                    assert_eq!(chunk(socket.hear()), want[n as usize], "seed {n}");
                }
            });
        }
    });
}

#[test]
fn a_server_that_stops_says_so_to_everyone() {
    let server = Running::tiny();
    let mut clients = [server.client(), server.client()];
    assert!(matches!(clients[0].ask(seeded(1)), Heard::Chunk(_)));
    server.stop();
    for client in &mut clients {
        assert_eq!(client.hear(), Heard::Closed(Some(1001)));
    }
}

#[test]
fn more_clients_than_there_may_be_are_told_to_come_back() {
    let server = Running::start(load("pi0-tiny"), Options { max_clients: 2, ..options() });
    let (one, two) = (server.client(), server.client());
    let Err(refused) = server.open() else { panic!("a third client was let in") };
    assert!(refused.to_string().contains("503"), "{refused}");
    let mut health = server.stream();
    health.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    health.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nOK\n"), "{answer}");
    one.0.get_ref().shutdown(Shutdown::Both).unwrap();
    drop(two);
    // Their places are free as soon as the server has seen them go.
    let again = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        server.open().is_ok()
    });
    assert!(again);
}

#[test]
fn options_that_cannot_be_are_refused() {
    let bind = |options| {
        let (stop, _) = std::os::unix::net::UnixStream::pair().unwrap();
        pi0_edge_serve::Server::bind(load("pi0-tiny"), options, stop.into()).unwrap_err().to_string()
    };
    let open = Options { listen: "0.0.0.0:0".parse().unwrap(), ..options() };
    assert!(bind(open).contains("API key"));
    let rename = vec![("cam".to_owned(), "nowhere".to_owned())];
    assert!(bind(Options { rename, ..options() }).contains("no camera \"nowhere\""));
    let embodiment = Some(Embodiment::Libero);
    assert!(bind(Options { embodiment, ..options() }).contains("no camera \"base_0_rgb\""));
    assert!(bind(Options { num_steps: Some(0), ..options() }).contains("number of steps"));
}
