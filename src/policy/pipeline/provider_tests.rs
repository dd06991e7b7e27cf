//! The real CUDA provider of ONNX Runtime's GPU build over a stand-in for CUDA, whose kernels compute nothing: what the
//! provider takes, what it waits for, and what it captures and replays. Numbers are for a GPU to show.

use std::path::Path;

use super::*;
use crate::bundle::Verify;
use crate::provider::Provider;
use crate::session::fake::{self, Fake};
use crate::session::{DeviceMemory, DeviceOptions};

#[test]
fn the_cuda_provider_takes_every_node_waits_for_nothing_and_replays() {
    fake::in_a_child("policy::pipeline::provider_tests::in_a_child");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn in_a_child() {
    for bundle in ["models/pi0-tiny", "models/pi05-tiny"] {
        for memory in [DeviceMemory::Separate, DeviceMemory::Unified] {
            run(Path::new(env!("CARGO_MANIFEST_DIR")).join(bundle).as_path(), memory);
        }
    }
}

fn load(bundle: &Path, memory: DeviceMemory) -> Pipeline {
    let environment = fake::environment_of_child();
    let bundle = Bundle::open(bundle, Verify::Size, &mut |_, _| {}).unwrap();
    let options = DeviceOptions { provider: Provider::Cuda, gpu: 0, memory, sleep: false };
    let device = Device::open(environment, options).unwrap();
    let options = |graph| GraphOptions {
        threads: 1,
        prepack: false,
        spin: false,
        cuda_graph: graph != GraphName::TimeConditioning,
        profile: None,
    };
    Pipeline::load(environment, &device, &bundle, options).unwrap()
}

fn run(bundle: &Path, memory: DeviceMemory) {
    const STEPS: usize = 10;
    let mut pipeline = load(bundle, memory);
    let fake = Fake::of_this_process();
    let synchronized = || fake.number(c"fake_synchronized");
    let at_first = fake.number(c"fake_graph_launches");
    let launched = || fake.number(c"fake_graph_launches") - at_first;
    let placed: Vec<_> = pipeline.placement().map(|(graph, provider, _)| (graph, provider)).collect();
    let cuda = ["vision_encoder", "prefix_prefill", "time_conditioning", "denoise_step"];
    assert_eq!(placed, cuda.map(|graph| (graph, "CUDAExecutionProvider")));

    // A chunk as it is driven, but for the vision encoder, whose convolution needs more of cuDNN than a stand-in has.
    pipeline.set_num_steps(STEPS).unwrap();
    pipeline.prepare(2, 40).unwrap();
    pipeline.restart();
    pipeline.x_t_mut().unwrap().fill(1.0);
    pipeline.send(Filled::Noise).unwrap();
    let before = synchronized();
    pipeline.prefill().unwrap();
    (0..STEPS).for_each(|step| pipeline.denoise_step(step).unwrap());
    assert_eq!(synchronized(), before, "from the noise to the last step nothing waits");
    pipeline.fetch_actions().unwrap();
    assert_eq!(synchronized(), before + 1, "the actions are what is waited for");
    assert!(pipeline.x_t().iter().all(|v| *v == 1.0), "what was sent comes back, as no kernel changes it");
    assert_eq!(pipeline.laps().unwrap().len(), 1 + STEPS);
    let chunk = pipeline.x_t().len() as u64 * 4;
    let moved = if memory == DeviceMemory::Unified { 0 } else { chunk };
    assert_eq!(pipeline.transfers(), Transfers { to_device: moved, from_device: moved });
    assert_eq!(launched(), 0);

    // What cannot be captured says so in the log and runs on; the others replay, each with one launch.
    assert!(pipeline.encode_views().unwrap_err().to_string().contains("cuDNN"));
    pipeline.capture().unwrap();
    assert_eq!(pipeline.replaying().collect::<Vec<_>>(), ["prefix_prefill", "denoise_step"]);
    let kernels = || fake.number(c"fake_kernel_launches");
    let (graphs, before) = (launched(), kernels());
    assert_eq!(graphs, 2, "capturing ends with running what was captured");
    let waits = synchronized();
    pipeline.prefill().unwrap();
    (0..STEPS).for_each(|step| pipeline.denoise_step(step).unwrap());
    assert_eq!((launched(), kernels()), (graphs + 1 + STEPS as i32, before));
    assert_eq!(synchronized(), waits, "replaying does not wait either");

    // Captured for this length and this thread alone.
    pipeline.prepare(2, 41).unwrap();
    assert_eq!(pipeline.replaying().count(), 0);
    let graphs = launched();
    pipeline.denoise_step(0).unwrap();
    assert_eq!(launched(), graphs, "another length runs as before, and captures nothing by itself");
    pipeline.prepare(2, 40).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(pipeline.replaying().count(), 0);
            pipeline.denoise_step(0).unwrap();
        });
        other.join().unwrap();
    });
    assert_eq!(launched(), graphs);
    assert_eq!(pipeline.replaying().count(), 2);
}
