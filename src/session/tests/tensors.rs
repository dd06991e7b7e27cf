use super::*;
use crate::session::memory::host::{ALIGNMENT, HostMemory};

fn tensors(separate: bool) -> Tensors {
    Tensors::new(Arc::new(HostMemory { separate }))
}

#[test]
fn tensors_are_zeroed_page_aligned_and_apart() {
    let mut t = tensors(false);
    let a = t.add("a", Dtype::F32, 5, Access::Host).unwrap();
    let b = t.add("b", Dtype::I64, 3, Access::Graphs).unwrap();
    assert_eq!(t.f32(a), [0.0; 5]);
    assert_eq!(t.bytes_mut(b).unwrap(), [0; 24]);
    let [pa, pb] = [a, b].map(|id| t.storage(id).block().device.as_ptr() as usize);
    assert_eq!((pa % ALIGNMENT, pb % ALIGNMENT), (0, 0));
    assert!(pa.abs_diff(pb) >= 20);
    t.f32_mut(a).unwrap()[4] = 7.0;
    assert_eq!(t.read_f32(a, 3..5).unwrap(), [0.0, 7.0]);
    assert_eq!(t.total_bytes(), 20 + 24);
}

#[test]
fn poison_is_nan_everywhere() {
    for separate in [false, true] {
        let mut t = tensors(separate);
        let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
        let h = t.add("h", Dtype::F16, 4, Access::Graphs).unwrap();
        let b = t.add("b", Dtype::Bf16, 4, Access::Graphs).unwrap();
        [a, h, b].iter().for_each(|id| t.poison(*id).unwrap());
        assert!(t.f32(a).iter().all(|v| v.is_nan()));
        assert!([a, h, b].iter().all(|id| t.read_f32(*id, 0..4).unwrap().iter().all(|v| v.is_nan())));
    }
}

#[test]
fn floats_of_every_size_are_filled_and_read_back() {
    let mut t = tensors(false);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let a = t.add("a", dtype, 3, Access::Host).unwrap();
        t.fill_floats(a, 1..3, -2.5).unwrap();
        assert_eq!(t.read_f32(a, 0..3).unwrap(), [0.0, -2.5, -2.5], "{dtype}");
    }
}

#[test]
#[should_panic(expected = "tensor a read as F32")]
fn reading_as_another_type_panics() {
    let mut t = tensors(false);
    let a = t.add("a", Dtype::I64, 1, Access::Host).unwrap();
    let _ = t.f32_mut(a);
}

#[test]
fn what_is_cleared_is_zero_for_the_graphs() {
    for separate in [false, true] {
        let mut t = tensors(separate);
        let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
        t.f32_mut(a).unwrap().fill(1.0);
        t.upload(a, 0..4).unwrap();
        t.clear(a, 1..3).unwrap();
        assert_eq!(t.read_f32(a, 0..4).unwrap(), [1.0, 0.0, 0.0, 1.0]);
    }
}

#[test]
fn one_memory_needs_no_copies() {
    let mut t = tensors(false);
    let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
    t.f32_mut(a).unwrap().fill(1.0);
    t.upload(a, 0..4).unwrap();
    t.download(a, 0..4).unwrap();
    assert_eq!(t.read_f32(a, 0..4).unwrap(), [1.0; 4]);
    assert_eq!(t.transfers(), Transfers::default());
}

#[test]
fn separate_sides_meet_by_copies_alone() {
    let mut t = tensors(true);
    let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
    t.f32_mut(a).unwrap().copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(t.read_f32(a, 0..4).unwrap(), [0.0; 4], "not there before it is uploaded");
    t.upload(a, 1..3).unwrap();
    assert_eq!(t.read_f32(a, 0..4).unwrap(), [0.0, 2.0, 3.0, 0.0]);
    t.download(a, 0..2).unwrap();
    assert_eq!(t.f32(a), [0.0, 2.0, 3.0, 4.0]);
    assert_eq!(t.transfers(), Transfers { to_device: 8, from_device: 8 });
    t.restart();
    assert_eq!(t.transfers(), Transfers::default());
}

#[test]
fn the_device_copies_between_its_own_tensors() {
    let mut t = tensors(true);
    let table = t.add("table", Dtype::I64, 4, Access::Graphs).unwrap();
    let one = t.add("one", Dtype::I64, 1, Access::Host).unwrap();
    t.write_once(table, &[10i64, 11, 12, 13]).unwrap();
    t.copy((table, 2), one, 1).unwrap();
    t.download(one, 0..1).unwrap();
    assert_eq!(t.bytes_mut(one).unwrap(), 12i64.to_ne_bytes());
}

#[test]
#[should_panic(expected = "tensor kv is the graphs' alone")]
fn what_the_graphs_keep_to_themselves_has_no_host_side() {
    let mut t = tensors(true);
    let kv = t.add("kv", Dtype::F32, 4, Access::Graphs).unwrap();
    let _ = t.f32_mut(kv);
}

#[test]
#[should_panic(expected = "of tensor a")]
fn a_range_outside_of_the_tensor_panics() {
    let mut t = tensors(true);
    let a = t.add("a", Dtype::F32, 4, Access::Host).unwrap();
    let _ = t.upload(a, 3..5);
}
