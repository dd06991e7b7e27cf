/*
 * A host that loads the library as a plugin, uses it, unloads it and does so again. It is not linked with the library.
 *
 *     plugin_host LIBRARY BUNDLE TIMES [running]      running: unloads with inference going on
 */
#define _GNU_SOURCE
#include <pi0_edge.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            const char *why_ = dlerror();                                                                    \
            fprintf(stderr, "%s:%d: not so: %s %s\n", __FILE__, __LINE__, #condition, why_ ? why_ : "");     \
            exit(3);                                                                                         \
        }                                                                                                    \
    } while (0)

static void *library;

static void *symbol(const char *name)
{
    void *found = dlsym(library, name);
    CHECK(found != NULL);
    return found;
}

/* ISO C has no cast from an object pointer to a function's. */
#define LOOK_UP(name)                                                                                        \
    __typeof__(&name) name##_;                                                                               \
    do {                                                                                                     \
        void *found_ = symbol(#name);                                                                        \
        memcpy(&name##_, &found_, sizeof found_);                                                            \
    } while (0)

static void use(const char *path, const char *bundle, int leave_running)
{
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    LOOK_UP(pi0_policy_new);
    LOOK_UP(pi0_runtime_config_default);
    LOOK_UP(pi0_runtime_start);
    LOOK_UP(pi0_runtime_free);
    LOOK_UP(pi0_observation_writer_free);
    LOOK_UP(pi0_controller_free);
    LOOK_UP(pi0_controller_read);

    pi0_policy *policy = NULL;
    pi0_runtime *runtime = NULL;
    pi0_observation_writer *writer = NULL;
    pi0_controller *controller = NULL;
    pi0_runtime_config config;
    pi0_error error = {{0}};
    float action[64];
    CHECK(pi0_policy_new_(bundle, NULL, &policy, &error) == PI0_OK);
    CHECK(pi0_runtime_config_default_(&config, sizeof config) == PI0_OK);
    config.prompt = "pick up the cube";
    config.max_frame_width = 64;
    config.max_frame_height = 48;
    CHECK(pi0_runtime_start_(policy, &config, &runtime, &writer, &controller, &error) == PI0_OK);
    CHECK(pi0_controller_read_(controller, action, 7, NULL) == PI0_EMPTY);
    if (!leave_running) {
        CHECK(pi0_controller_free_(controller) == PI0_OK);
        CHECK(pi0_observation_writer_free_(writer) == PI0_OK);
        CHECK(pi0_runtime_free_(runtime) == PI0_OK);
    }
    CHECK(dlclose(library) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 4 || argc == 5);
    const int times = atoi(argv[3]), running = argc == 5;
    for (int i = 0; i < times; i++)
        use(argv[1], argv[2], running);
    printf("loaded and unloaded %d times\n", times);
    return 0;
}
