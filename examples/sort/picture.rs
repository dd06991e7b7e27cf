//! An animated picture of two runs of an episode, side by side: what happens, what the policy sees and plans, how old
//! the action is, and how far the actions are apart where one chunk takes over from another.

use std::time::Duration;

use pi0_edge::Status;

use crate::camera::{Camera, FRAME};
use crate::closed_loop::{Episode, Moment, PERIOD};
use crate::font;
use crate::gif::Gif;
use crate::world::{Outcome, TICK, World, length, minus};

const WIDTH: usize = 440;
const SCENE: [usize; 2] = [WIDTH, 240];
/// The top of the scene, of the cameras' frames and of the steps.
const ROWS: [usize; 3] = [46, 292, 466];
const HEIGHT: usize = 560;
const GAP: usize = 8;
/// How many times the policy's frames are enlarged.
const ZOOM: usize = 3;
/// A step of this length in metres fills the height that there is for it; and the width of one.
const HIGHEST: f32 = 0.06;
const COLUMN: usize = 5;

const PAPER: [u8; 3] = [250, 250, 247];
const INK: [u8; 3] = [40, 42, 46];
const STEP: [u8; 3] = [150, 170, 190];
const SEAM: [u8; 3] = [216, 60, 40];
const PLAN: [[u8; 3]; 2] = [[255, 214, 10], [40, 200, 90]];

/// What is kept of each tick.
pub struct Shot {
    world: World,
    prompt: String,
    status: Status,
    age: Duration,
    /// The rows of the chunk that are still to come: places, and whether the suction is on.
    plan: Vec<([f32; 3], bool)>,
    place: [f32; 3],
    seam: bool,
}

impl Shot {
    pub fn take(moment: &Moment<'_>, chunk: &[Vec<f32>]) -> Self {
        let reading = moment.reading;
        let to_come = chunk.iter().skip(reading.row as usize);
        Shot {
            world: moment.world.clone(),
            prompt: moment.prompt.to_owned(),
            status: reading.status,
            age: Duration::from_nanos(reading.age_ns),
            plan: to_come.map(|row| ([row[0], row[1], row[2]], row[3] > 0.5)).collect(),
            place: [moment.action[0], moment.action[1], moment.action[2]],
            seam: moment.seam.is_some(),
        }
    }
}

/// Returns a GIF of the runs, each with its title.
pub fn draw(runs: &[(String, Vec<Shot>, Episode); 2]) -> Vec<u8> {
    let width = WIDTH * 2 + GAP;
    let mut gif = Gif::new(width, HEIGHT);
    let cameras = [Camera::base(SCENE[0], SCENE[1]), Camera::base(FRAME, FRAME), Camera::wrist(FRAME, FRAME)];
    let ticks = runs.iter().map(|(_, shots, _)| shots.len()).max().unwrap_or(0);
    let period = (PERIOD.as_millis() / 10) as u16;
    for tick in 0..ticks {
        let mut sheet = Sheet::new(width);
        for (i, (title, shots, episode)) in runs.iter().enumerate() {
            panel(
                &mut sheet,
                i * (WIDTH + GAP),
                title,
                &shots[..shots.len().min(tick + 1)],
                episode,
                &cameras,
            );
        }
        gif.frame(&sheet.rgb, if tick + 1 == ticks { 200 } else { period });
    }
    gif.finish()
}

fn panel(
    sheet: &mut Sheet,
    left: usize,
    title: &str,
    shots: &[Shot],
    episode: &Episode,
    cameras: &[Camera; 3],
) {
    let Some(shot) = shots.last() else { return };
    sheet.text([left + 4, 6], title);
    sheet.text([left + 4, 26], &shot.prompt);
    let frames = ROWS[1];
    let places = [[left, ROWS[0]], [left, frames], [left + FRAME * ZOOM + 4, frames]];
    for ((camera, size), (place, zoom)) in
        cameras.iter().zip([SCENE, [FRAME; 2], [FRAME; 2]]).zip(places.into_iter().zip([1, ZOOM, ZOOM]))
    {
        let mut rgb = vec![0; size[0] * size[1] * 3];
        camera.draw(&shot.world, &mut rgb);
        sheet.image(place, &rgb, size[0], zoom);
    }
    for (place, suction) in &shot.plan {
        let [x, y] = cameras[0].project(*place);
        if x >= 2.0 && y >= 2.0 && x < SCENE[0] as f32 - 2.0 && y < SCENE[1] as f32 - 2.0 {
            sheet.fill(
                [left + x as usize - 1, ROWS[0] + y as usize - 1],
                [3, 3],
                PLAN[usize::from(*suction)],
            );
        }
    }
    let over = shots.len() == episode.ticks;
    let outcome = match episode.outcome {
        _ if !over => "",
        Outcome::Sorted => "sorted",
        Outcome::Misplaced => "wrong",
        Outcome::Running => "late",
    };
    let age = format!("{} ms", shot.age.as_millis());
    let time = format!("{:.2} s", shots.len() as f32 * TICK);
    let lines = [&time, "", "age", &age, shot.status.as_str(), "", outcome];
    for (i, line) in lines.iter().enumerate() {
        sheet.text([left + (FRAME * ZOOM + 4) * 2 + 4, frames + 4 + i * 20], line);
    }
    // One column a step from action to action.
    sheet.text([left + 4, ROWS[2]], "red: a new chunk takes over");
    let high = HEIGHT - ROWS[2] - 24;
    for (i, pair) in shots.windows(2).enumerate() {
        let share = (length(minus(pair[1].place, pair[0].place)) / HIGHEST).min(1.0);
        let height = (share * high as f32) as usize + 1;
        let corner = [left + i % (WIDTH / COLUMN) * COLUMN, HEIGHT - 4 - height];
        sheet.fill(corner, [COLUMN - 1, height], if pair[1].seam { SEAM } else { STEP });
    }
}

/// A page to draw on.
struct Sheet {
    width: usize,
    rgb: Vec<u8>,
}

impl Sheet {
    fn new(width: usize) -> Self {
        Sheet { width, rgb: PAPER.repeat(width * HEIGHT) }
    }

    fn fill(&mut self, [left, top]: [usize; 2], [width, height]: [usize; 2], colour: [u8; 3]) {
        for y in top..top + height {
            let row = &mut self.rgb[(y * self.width + left) * 3..][..width * 3];
            row.as_chunks_mut().0.fill(colour);
        }
    }

    fn image(&mut self, [left, top]: [usize; 2], rgb: &[u8], width: usize, zoom: usize) {
        for (i, colour) in rgb.as_chunks().0.iter().enumerate() {
            self.fill([left + i % width * zoom, top + i / width * zoom], [zoom, zoom], *colour);
        }
    }

    fn text(&mut self, [left, top]: [usize; 2], text: &str) {
        for (i, letter) in text.chars().enumerate() {
            for (x, y) in (0..font::HEIGHT).flat_map(|y| (0..font::WIDTH).map(move |x| (x, y))) {
                if font::pixel(letter, x, y) {
                    self.fill([left + (i * font::WIDTH + x) * 2, top + y * 2], [2, 2], INK);
                }
            }
        }
    }
}
