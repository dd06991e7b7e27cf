/*
 * One observation in, one action chunk out, without a thread.
 *
 *     cc -std=c99 infer_once.c $(pkg-config --cflags --libs pi0_edge) -o infer_once
 *     ./infer_once BUNDLE [PROMPT]
 */
#include <pi0_edge.h>

#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 320, HEIGHT = 240, NAME_SIZE = 128 };

static int failed(const char *what, pi0_status status, const pi0_error *error)
{
    fprintf(stderr, "%s: %s (status %d)%s%s\n", what, pi0_status_str(status), (int)status, error ? ": " : "",
            error ? error->message : "");
    return EXIT_FAILURE;
}

/* Every camera sees a grey ramp; a robot would hand over its drivers' buffers. */
static int infer(pi0_policy *policy, const pi0_info *info, const char *prompt)
{
    const size_t actions_len = (size_t)info->action_horizon * info->action_dim;
    uint8_t *pixels = malloc((size_t)WIDTH * HEIGHT * 3);
    float *state = calloc(info->state_dim, sizeof *state);
    float *actions = malloc(actions_len * sizeof *actions);
    pi0_image *images = calloc(info->cameras, sizeof *images);
    char(*names)[NAME_SIZE] = calloc(info->cameras, sizeof *names);
    pi0_observation observation = {.struct_size = sizeof observation};
    pi0_timing timing = {.struct_size = sizeof timing};
    pi0_infer_options options;
    pi0_error error;
    pi0_status status;
    int result = EXIT_FAILURE;

    if (!pixels || !state || !actions || !images || !names) {
        fputs("out of memory\n", stderr);
        goto done;
    }
    for (size_t i = 0; i < (size_t)WIDTH * HEIGHT * 3; i++)
        pixels[i] = (uint8_t)(i / 3 % WIDTH * 255 / WIDTH);
    for (uint32_t camera = 0; camera < info->cameras; camera++) {
        status = pi0_policy_camera(policy, camera, names[camera], NAME_SIZE, NULL);
        if (status != PI0_OK) {
            failed("a camera's name", status, NULL);
            goto done;
        }
        images[camera] = (pi0_image){.camera = names[camera], .rgb = pixels, .width = WIDTH, .height = HEIGHT};
    }
    observation.images = images;
    observation.image_count = info->cameras;
    observation.state = state;
    observation.state_len = info->state_dim;
    observation.prompt = prompt;

    pi0_infer_options_default(&options, sizeof options);
    options.seed = 7;
    status = pi0_policy_infer(policy, &observation, &options, actions, actions_len, &error);
    if (status != PI0_OK) {
        failed("inference", status, &error);
        goto done;
    }
    for (uint32_t row = 0; row < info->action_horizon; row++) {
        printf("%4u", (unsigned)row);
        for (uint32_t joint = 0; joint < info->action_dim; joint++)
            printf(" %9.4f", (double)actions[(size_t)row * info->action_dim + joint]);
        putchar('\n');
    }
    if (pi0_policy_timing(policy, &timing) == PI0_OK)
        fprintf(stderr, "%.3f ms: preprocess %.3f, vision %.3f, prefix %.3f, denoise %.3f\n",
                (double)timing.total_ns / 1e6, (double)timing.preprocess_ns / 1e6, (double)timing.vision_ns / 1e6,
                (double)timing.prefix_ns / 1e6, (double)timing.denoise_ns / 1e6);
    result = EXIT_SUCCESS;

done:
    free(names);
    free(images);
    free(actions);
    free(state);
    free(pixels);
    return result;
}

int main(int argc, char **argv)
{
    pi0_policy *policy = NULL;
    pi0_info info = {.struct_size = sizeof info};
    pi0_error error;
    pi0_status status;
    int result;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: %s BUNDLE [PROMPT]\n", argv[0]);
        return 2;
    }
    /* What the library and ONNX Runtime have to say goes to standard error. */
    pi0_log_set_fd(2, PI0_LOG_WARN);
    status = pi0_policy_new(argv[1], NULL, &policy, &error);
    if (status != PI0_OK)
        return failed(argv[1], status, &error);
    status = pi0_policy_info(policy, &info);
    result = status == PI0_OK ? infer(policy, &info, argc > 2 ? argv[2] : "pick up the cube")
                              : failed("the policy's dimensions", status, NULL);
    pi0_policy_free(policy);
    return result;
}
