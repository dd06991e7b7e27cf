//! Pictures of the world by casting one ray a pixel at planes and boxes.

use crate::world::{BELT, BIN_HALF, BIN_HEIGHT, BINS, BLOCK, Point, World, length, minus, plus};

type Colour = [f32; 3];

/// The edge of the frames that the policy sees, in pixels.
pub const FRAME: usize = 56;

const TABLE: Colour = [206.0, 204.0, 196.0];
const RUBBER: [Colour; 2] = [[62.0, 68.0, 72.0], [96.0, 102.0, 106.0]];
const WOOD: [Colour; 2] = [[122.0, 92.0, 56.0], [172.0, 138.0, 88.0]];
const BLOCKS: [Colour; 2] = [[214.0, 34.0, 30.0], [30.0, 66.0, 222.0]];
const CUP: Colour = [28.0, 28.0, 30.0];
const COLLAR: Colour = [236.0, 196.0, 40.0];
const SHAFT: Colour = [176.0, 176.0, 182.0];
/// How much light comes back from the sides that face x, y and z.
const LIGHT: Point = [0.7, 0.84, 1.0];

/// A camera that looks the same way always; on the tool it moves along.
pub struct Camera {
    eye: Point,
    on_tool: bool,
    /// Ahead, to the right and down.
    axes: [Point; 3],
    wide: f32,
    size: [usize; 2],
    rays: Vec<Ray>,
}

struct Ray {
    way: Point,
    /// One over `way`.
    inverse: Point,
}

struct Solid {
    low: Point,
    high: Point,
    colour: Colour,
}

impl Camera {
    /// The camera before the table. Of `width` × `height` pixels.
    pub fn base(width: usize, height: usize) -> Self {
        Self::new([0.0, -0.56, 0.5], [0.0, 0.02, 0.0], 0.48, [width, height], false)
    }

    /// The camera beside the tool, which looks down past it.
    pub fn wrist(width: usize, height: usize) -> Self {
        Self::new([0.0, -0.07, 0.13], [0.0, 0.015, 0.0], 0.8, [width, height], true)
    }

    /// `wide`: half the width of what it sees, at a distance of 1.
    fn new(eye: Point, at: Point, wide: f32, [width, height]: [usize; 2], on_tool: bool) -> Self {
        let ahead = unit(minus(at, eye));
        let right = unit([ahead[1], -ahead[0], 0.0]);
        let down = cross(ahead, right);
        let ray = |pixel: usize| {
            let across = |i: usize, n: usize| (i as f32 + 0.5) * 2.0 - n as f32;
            let [u, v] = [across(pixel % width, width), across(pixel / width, height)]
                .map(|p| p * wide / width as f32);
            let way = plus(ahead, plus(right.map(|a| a * u), down.map(|a| a * v)));
            Ray { way, inverse: way.map(|a| 1.0 / a) }
        };
        let rays = (0..width * height).map(ray).collect();
        Camera { eye, on_tool, axes: [ahead, right, down], wide, size: [width, height], rays }
    }

    /// Returns the pixel, from the left and from the top, where a point of the world is seen from a camera that stands.
    pub fn project(&self, at: Point) -> [f32; 2] {
        let from_eye = minus(at, self.eye);
        let [ahead, right, down] = self.axes.map(|axis| (0..3).map(|i| axis[i] * from_eye[i]).sum::<f32>());
        let [width, height] = self.size.map(|n| n as f32);
        let scale = width / self.wide / 2.0;
        [right / ahead * scale + width / 2.0, down / ahead * scale + height / 2.0]
    }

    /// Draws the world into `out`: RGB, row by row.
    pub fn draw(&self, world: &World, out: &mut [u8]) {
        let eye = if self.on_tool { plus(self.eye, world.tool) } else { self.eye };
        let solids = moving(world);
        let bins = BINS.map(bin);
        for (ray, pixel) in self.rays.iter().zip(out.chunks_exact_mut(3)) {
            let mut nearest = f32::INFINITY;
            let mut colour = TABLE;
            if ray.way[2] < 0.0 {
                nearest = -eye[2] * ray.inverse[2];
                colour = ground(world, plus(eye, ray.way.map(|a| a * nearest)));
            }
            let mut meet = |solid: &Solid| {
                if let Some((t, axis)) = enters(solid, eye, ray).filter(|(t, _)| *t < nearest) {
                    nearest = t;
                    colour = solid.colour.map(|c| c * LIGHT[axis]);
                }
            };
            solids.iter().for_each(&mut meet);
            for (hull, parts) in &bins {
                if enters(hull, eye, ray).is_some() {
                    parts.iter().for_each(&mut meet);
                }
            }
            for (byte, value) in pixel.iter_mut().zip(colour) {
                *byte = value as u8;
            }
        }
    }
}

/// Returns the colour of the table or the belt, with the shadows of what is above.
fn ground(world: &World, at: Point) -> Colour {
    let belt = (BELT[0]..BELT[1]).contains(&at[1]);
    let colour = if belt {
        let along = (at[0] - world.belt_way) * 12.0;
        RUBBER[usize::from(along - along.floor() < 0.12)]
    } else {
        TABLE
    };
    let under = |above: Point, half: f32| (0..2).all(|axis| (at[axis] - above[axis]).abs() < half);
    let shadow = under(world.tool, 0.011) || world.blocks.iter().any(|block| under(*block, BLOCK / 2.0));
    if shadow { colour.map(|c| c * 0.55) } else { colour }
}

/// The two blocks and the tool.
fn moving(world: &World) -> [Solid; 5] {
    let [x, y, z] = world.tool;
    let column = |half: f32, from: f32, to: f32, colour| Solid {
        low: [x - half, y - half, z + from],
        high: [x + half, y + half, z + to],
        colour,
    };
    let block = |i: usize| Solid {
        low: world.blocks[i].map(|v| v - BLOCK / 2.0),
        high: world.blocks[i].map(|v| v + BLOCK / 2.0),
        colour: BLOCKS[i],
    };
    [
        block(0),
        block(1),
        column(0.01, 0.0, 0.016, CUP),
        column(0.013, 0.016, 0.03, COLLAR),
        column(0.007, 0.03, 0.3, SHAFT),
    ]
}

/// Returns a bin: the box around it, and its walls and floor.
fn bin([x, y]: [f32; 2]) -> (Solid, [Solid; 5]) {
    let [w, h] = BIN_HALF;
    let solid = |x0: f32, x1: f32, y0: f32, y1: f32, high: f32, colour| Solid {
        low: [x + x0, y + y0, 0.0],
        high: [x + x1, y + y1, high],
        colour,
    };
    const WALL: f32 = 0.008;
    let wall = |x0, x1, y0, y1| solid(x0, x1, y0, y1, BIN_HEIGHT, WOOD[0]);
    let (ow, oh) = (w + WALL, h + WALL);
    let parts = [
        wall(-ow, -w, -oh, oh),
        wall(w, ow, -oh, oh),
        wall(-ow, ow, -oh, -h),
        wall(-ow, ow, h, oh),
        solid(-w, w, -h, h, 0.002, WOOD[1]),
    ];
    (wall(-ow, ow, -oh, oh), parts)
}

/// Returns where along the ray it enters the box from outside, and through the side that faces which axis.
fn enters(solid: &Solid, eye: Point, ray: &Ray) -> Option<(f32, usize)> {
    let (mut enter, mut leave, mut side) = (0.0f32, f32::INFINITY, 3);
    for (axis, eye) in eye.iter().enumerate() {
        let [a, b] = [solid.low, solid.high].map(|side| (side[axis] - eye) * ray.inverse[axis]);
        let (near, far) = if a < b { (a, b) } else { (b, a) };
        if near > enter {
            (enter, side) = (near, axis);
        }
        leave = leave.min(far);
    }
    (side < 3 && enter < leave).then_some((enter, side))
}

fn unit(a: Point) -> Point {
    let long = length(a);
    a.map(|v| v / long)
}

fn cross(a: Point, b: Point) -> Point {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}
