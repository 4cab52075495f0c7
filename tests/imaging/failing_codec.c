/* Preloaded before CharLS: a JPEG-LS codec with the bugs that hostile codestreams find.

   What it does is written in a comment segment (COM) of the codestream itself, so that all other frames decode as ever:
   "crash" writes through a null pointer, "hang" never comes back, "gorge" asks for 32 GiB and gives up if there are none. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int holds(const void *source, size_t size, const char *words) {
    return memmem(source, size, words, strlen(words)) != NULL;
}

/* Extension modules load their libraries into a scope of their own, where RTLD_NEXT does not look. */
static int find(struct dl_phdr_info *info, size_t size, void *found) {
    (void)size;
    if (strstr(info->dlpi_name, "libcharls") == NULL)
        return 0;
    *(void **)found = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    return 1;
}

int charls_jpegls_decoder_set_source_buffer(void *decoder, const void *source, size_t size) {
    void *charls = NULL;
    dl_iterate_phdr(find, &charls);
    int (*next)(void *, const void *, size_t) = dlsym(charls, "charls_jpegls_decoder_set_source_buffer");
    if (holds(source, size, "codec test: crash")) {
        volatile int *nowhere = NULL;
        *nowhere = 1;
    }
    while (holds(source, size, "codec test: hang"))
        pause();
    if (holds(source, size, "codec test: gorge")) {
        size_t much = (size_t)32 << 30;
        char *memory = mmap(NULL, much, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
            return 3; /* not enough memory */
        munmap(memory, much);
    }
    return next(decoder, source, size);
}
