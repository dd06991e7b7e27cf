//! The real CUDA provider of ONNX Runtime's GPU build over a stand-in for CUDA, whose kernels compute nothing: what the
//! provider takes, what it waits for, and what it captures and replays. Numbers are for a GPU to show.

use std::path::Path;

use super::*;
use crate::bundle::Verify;
use crate::policy::{Policy, PolicyOptions};
use crate::provider::Provider;
use crate::session::fake::{self, Fake};
use crate::session::{DeviceMemory, DeviceOptions, Transfers};

fn placed_on(p: &Pipeline) -> Vec<(&'static str, &str)> {
    let graphs = [&p.vision, &p.prefill, &p.time_conditioning, &p.denoise].into_iter();
    graphs.flat_map(|g| g.placement().map(|(provider, _)| (g.name(), provider))).collect()
}

fn replaying(p: &Pipeline) -> Vec<&'static str> {
    [&p.vision, &p.prefill, &p.denoise].into_iter().filter(|g| g.replays()).map(Graph::name).collect()
}

#[test]
fn the_cuda_provider_takes_every_node_waits_for_nothing_and_replays() {
    fake::in_a_child("policy::pipeline::provider_tests::in_a_child");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn in_a_child() {
    a_kernel_that_cannot_run_is_found_at_load();
    for bundle in ["models/pi0-tiny", "models/pi05-tiny"] {
        for memory in [DeviceMemory::Separate, DeviceMemory::Unified] {
            run(Path::new(env!("CARGO_MANIFEST_DIR")).join(bundle).as_path(), memory);
        }
    }
}

/// Launches of one layer and of the rest, by graph, for the forms of the target `cuda` with ONNX Runtime 1.31, in fp16. Of a
/// prefill's layer of PI0 nearly half is the state token's.
const BUDGETS: [(&str, [(usize, usize); 3]); 2] =
    [("pi0", [(10, 8), (31, 2), (18, 5)]), ("pi05", [(10, 8), (17, 1), (22, 8)])];

#[test]
fn fused_graphs_launch_within_their_budgets_and_read_nothing_of_the_hosts() {
    fake::in_a_child("policy::pipeline::provider_tests::launches_in_a_child");
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn launches_in_a_child() {
    for (policy, budgets) in BUDGETS {
        let options = ["--target", "cuda", "--onnxruntime-version", "1.31", "--precision", "fp16"];
        let exports = fake::exports::Exports::of(policy, "small");
        count_launches(&exports.bundle("fused", &options), budgets);
    }
}

fn count_launches(bundle: &Path, budgets: [(usize, usize); 3]) {
    let d = Bundle::open(bundle, Verify::Size, &mut |_, _| {}).unwrap().manifest().dimensions.clone();
    let layers = [d.vision_layers, d.layers, d.layers];
    let mut pipeline = load(bundle, DeviceMemory::Separate);
    let fake = Fake::of_this_process();
    let counts = || {
        let launches = fake.number(c"fake_kernel_launches") + fake.number(c"fake_fills");
        (launches as usize, fake.number(c"fake_copied_from_host"))
    };
    pipeline.set_num_steps(10).unwrap();
    pipeline.prepare(2, 2 * d.tokens_per_view + 8).unwrap();
    let runs: [fn(&mut Pipeline) -> Result<()>; 3] =
        [Pipeline::encode_views, Pipeline::prefill, |pipeline| pipeline.denoise_step(3)];
    for ((run, graph), (layers, (each, rest))) in
        runs.iter().zip(["vision", "prefill", "denoise step"]).zip(layers.into_iter().zip(budgets))
    {
        run(&mut pipeline).unwrap();
        let (launches, copies) = counts();
        run(&mut pipeline).unwrap();
        let (launches, copies) = (counts().0 - launches, counts().1 - copies);
        println!("{graph}: {launches} launches, {layers} layers");
        assert!(launches <= each * layers + rest, "{graph}: {launches} launches for {layers} layers");
        assert!(launches > layers, "{graph}: {launches} launches counted");
        assert_eq!(copies, 0, "{graph} reads the host's memory while it runs");
    }
    let (_, copies) = counts();
    pipeline.capture().unwrap();
    assert_eq!(replaying(&pipeline).len(), 3, "the vision encoder too needs no cuDNN");
    let (launches, _) = counts();
    runs.iter().for_each(|run| run(&mut pipeline).unwrap());
    assert_eq!(counts(), (launches, copies), "captured and replayed, nothing is read or launched one by one");
}

/// Every node is placed and only a run shows what is missing: here cuDNN, which the provider opens when it needs it.
fn a_kernel_that_cannot_run_is_found_at_load() {
    let library = fake::environment_of_child().library().to_path_buf();
    let options =
        PolicyOptions { provider: Provider::Cuda, ort_library: Some(library), ..PolicyOptions::default() };
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pi0-tiny");
    let error = Policy::load(bundle, &options).unwrap_err().to_string();
    for word in ["smoke run", "vision_encoder", "cuDNN is unavailable", "libcudnn.so", "pi0-edge doctor"] {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
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
    Pipeline::load(environment, &device, &bundle, None, options).unwrap()
}

fn run(bundle: &Path, memory: DeviceMemory) {
    const STEPS: usize = 10;
    let mut pipeline = load(bundle, memory);
    let fake = Fake::of_this_process();
    let synchronized = || fake.number(c"fake_synchronized");
    let at_first = fake.number(c"fake_graph_launches");
    let launched = || fake.number(c"fake_graph_launches") - at_first;
    let placed = placed_on(&pipeline);
    let cuda = ["vision_encoder", "prefix_prefill", "time_conditioning", "denoise_step"];
    assert_eq!(placed, cuda.map(|graph| (graph, "CUDAExecutionProvider")));

    // A chunk as it is driven, but for the vision encoder, whose convolution needs more of cuDNN than a stand-in has.
    pipeline.set_num_steps(STEPS).unwrap();
    pipeline.prepare(2, 40).unwrap();
    pipeline.restart();
    pipeline.input_mut(|ids| ids.x_t).unwrap().fill(1.0);
    pipeline.send(Filled::Noise).unwrap();
    let copied = || fake.number(c"fake_copied");
    let copied_back = || fake.number(c"fake_copied_back");
    let (before, back) = (synchronized(), copied_back());
    pipeline.prefill().unwrap();
    (0..STEPS).for_each(|step| pipeline.denoise_step(step).unwrap());
    assert_eq!(synchronized(), before, "from the noise to the last step nothing waits");
    assert_eq!(copied_back(), back, "and nothing comes back to the host");
    pipeline.fetch_actions().unwrap();
    assert_eq!(synchronized(), before + 1, "the actions are what is waited for");
    assert!(pipeline.x_t().iter().all(|v| *v == 1.0), "what was sent comes back, as no kernel changes it");
    assert_eq!(pipeline.run_times().unwrap().len(), 1 + STEPS);
    let chunk = pipeline.x_t().len() as u64 * 4;
    let moved = if memory == DeviceMemory::Unified { 0 } else { chunk };
    assert_eq!(pipeline.tensors.transfers(), Transfers { to_device: moved, from_device: moved });
    assert_eq!(launched(), 0);

    // What cannot be captured says so in the log and runs on; the others replay, each with one launch.
    assert!(pipeline.encode_views().unwrap_err().to_string().contains("cuDNN"));
    pipeline.capture().unwrap();
    assert_eq!(replaying(&pipeline), ["prefix_prefill", "denoise_step"]);
    let kernels = || fake.number(c"fake_kernel_launches");
    let (graphs, before) = (launched(), kernels());
    assert_eq!(graphs, 2, "capturing ends with running what was captured");
    let (waits, copies) = (synchronized(), copied());
    pipeline.prefill().unwrap();
    (0..STEPS).for_each(|step| pipeline.denoise_step(step).unwrap());
    assert_eq!((launched(), kernels()), (graphs + 1 + STEPS as i32, before));
    assert_eq!(synchronized(), waits, "replaying does not wait either");
    assert_eq!(copied() - copies, STEPS as i32, "what is left to copy is each step's number, on the device");

    // Captured for this length and this thread alone.
    pipeline.prepare(2, 41).unwrap();
    assert_eq!(replaying(&pipeline).len(), 0);
    let graphs = launched();
    pipeline.denoise_step(0).unwrap();
    assert_eq!(launched(), graphs, "another length runs as before, and captures nothing by itself");
    pipeline.prepare(2, 40).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(replaying(&pipeline).len(), 0);
            pipeline.denoise_step(0).unwrap();
        });
        other.join().unwrap();
    });
    assert_eq!(launched(), graphs);
    assert_eq!(replaying(&pipeline).len(), 2);
}
