/* A stand-in for libnvidia-ml.so.1 that answers from a script.

   $NVML_SCRIPT names a text file; each line is

       DEVICE.KEY ANSWER ANSWER ...

   and each call takes the next answer, the last one over and over. `!3` is error 3.
   A key without a line is not supported. The devices are gpu0 and gpu1, and slot0 and
   slot1 of each (gpu1.slot0.uuid ...), which stand for the slices of a GPU in MIG mode.
   -DWITHOUT_MIG, -DWITHOUT_ENERGY and -DWITHOUT_EVENT_REASONS leave functions out. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7
};
enum { GPUS = 2, SLOTS = 2, MAX_LINES = 200, MAX_ANSWERS = 50 };

typedef struct Device {
    const char *name;
    struct Device *parent; /* NULL: a whole GPU */
} Device;

typedef struct {
    char *key;
    char *answers[MAX_ANSWERS];
    int count, next;
} Line;

typedef unsigned long long u64;

static Device gpus[GPUS] = {{"gpu0", NULL}, {"gpu1", NULL}};
static Device slots[GPUS][SLOTS] = {
    {{"gpu0.slot0", &gpus[0]}, {"gpu0.slot1", &gpus[0]}},
    {{"gpu1.slot0", &gpus[1]}, {"gpu1.slot1", &gpus[1]}},
};
static Line lines[MAX_LINES];
static int line_count;

static void read_script(void) {
    FILE *file = fopen(getenv("NVML_SCRIPT"), "r");
    char text[4096];
    line_count = 0;
    while (file && line_count < MAX_LINES && fgets(text, sizeof text, file)) {
        Line *line = &lines[line_count];
        memset(line, 0, sizeof *line);
        char *word = strtok(text, " \n");
        if (!word) continue;
        line->key = strdup(word);
        while (line->count < MAX_ANSWERS && (word = strtok(NULL, " \n")))
            line->answers[line->count++] = strdup(word);
        line_count++;
    }
    if (file) fclose(file);
}

static Line *find(const char *device, const char *key) {
    char wanted[200];
    snprintf(wanted, sizeof wanted, "%s.%s", device, key);
    for (int i = 0; i < line_count; i++)
        if (!strcmp(lines[i].key, wanted)) return &lines[i];
    return NULL;
}

/* The next answer without taking it. */
static int look(const char *device, const char *key, const char **answer) {
    Line *line = find(device, key);
    if (!line || !line->count) return NOT_SUPPORTED;
    int last = line->count - 1;
    *answer = line->answers[line->next < last ? line->next : last];
    return (*answer)[0] == '!' ? atoi(*answer + 1) : SUCCESS;
}

static int text(const char *device, const char *key, const char **answer) {
    int status = look(device, key, answer);
    Line *line = find(device, key);
    if (line) line->next++;
    return status;
}

static int number(const char *device, const char *key, u64 *value) {
    const char *answer;
    int status = text(device, key, &answer);
    if (status == SUCCESS) *value = strtoull(answer, NULL, 0);
    return status;
}

static int small_number(const char *device, const char *key, unsigned *value) {
    u64 large;
    int status = number(device, key, &large);
    if (status == SUCCESS) *value = (unsigned)large;
    return status;
}

static int copy(const char *device, const char *key, char *to, unsigned length) {
    const char *answer;
    int status = text(device, key, &answer);
    if (status != SUCCESS) return status;
    snprintf(to, length, "%s", answer);
    for (; *to; to++) /* the script's words have no blanks */
        if (*to == '_') *to = ' ';
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    u64 status = SUCCESS;
    read_script();
    int missing = number("nvml", "init", &status);
    return missing == NOT_SUPPORTED ? SUCCESS : missing;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    return copy("nvml", "driver", version, length);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    return small_number("nvml", "count", count);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    if (index >= GPUS) return INVALID_ARGUMENT;
    *device = &gpus[index];
    return SUCCESS;
}

static int has_uuid(Device *device, const char *uuid) {
    const char *answer;
    return look(device->name, "uuid", &answer) == SUCCESS && !strcmp(answer, uuid);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    for (int gpu = 0; gpu < GPUS; gpu++) {
        *device = &gpus[gpu];
        if (has_uuid(*device, uuid)) return SUCCESS;
        for (int slot = 0; slot < SLOTS; slot++) {
            *device = &slots[gpu][slot];
            if (has_uuid(*device, uuid)) return SUCCESS;
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned length) {
    return copy(device->name, "uuid", uuid, length);
}

int nvmlDeviceGetName(Device *device, char *name, unsigned length) {
    return copy(device->name, "name", name, length);
}

#ifndef WITHOUT_MIG
int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    *pending = 0;
    return small_number(device->name, "mig", current);
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) {
    (void)device;
    *count = SLOTS;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **slice) {
    *slice = &slots[device - gpus][index];
    return find((*slice)->name, "uuid") ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *slice, Device **device) {
    *device = slice->parent;
    return *device ? SUCCESS : INVALID_ARGUMENT;
}
#endif

int nvmlDeviceGetUtilizationRates(Device *device, unsigned rates[2]) {
    rates[1] = 0; /* of the memory */
    return small_number(device->name, "utilization", &rates[0]);
}

int nvmlDeviceGetMemoryInfo(Device *device, u64 info[3]) { /* total, free, used */
    int status = number(device->name, "memory_total", &info[0]);
    if (status == SUCCESS) status = number(device->name, "memory_used", &info[2]);
    info[1] = info[0] - info[2];
    return status;
}

int nvmlDeviceGetClockInfo(Device *device, int clock, unsigned *mhz) {
    const char *keys[] = {"graphics_clock", "clock", "memory_clock", "video_clock"};
    return small_number(device->name, keys[clock], mhz);
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) {
    (void)sensor;
    return small_number(device->name, "temperature", celsius);
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    return small_number(device->name, "power", milliwatts);
}

#ifndef WITHOUT_ENERGY
int nvmlDeviceGetTotalEnergyConsumption(Device *device, u64 *millijoules) {
    return number(device->name, "energy", millijoules);
}
#endif

#ifndef WITHOUT_EVENT_REASONS
int nvmlDeviceGetCurrentClocksEventReasons(Device *device, u64 *reasons) {
    return number(device->name, "reasons", reasons);
}
#endif

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, u64 *reasons) {
    return number(device->name, "reasons", reasons);
}

typedef struct {
    unsigned pid;
    u64 memory;
    unsigned gpu_instance, compute_instance;
} Process;

/* An answer is `none`, or process ids with commas; `self` is the caller's. */
int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *list) {
    const char *answer;
    unsigned room = *count;
    int status = look(device->name, "processes", &answer);
    if (status != SUCCESS) return text(device->name, "processes", &answer);
    char words[1000];
    snprintf(words, sizeof words, "%s", answer);
    *count = 0;
    for (char *word = strtok(words, ","); word; word = strtok(NULL, ",")) {
        if (!strcmp(word, "none")) continue;
        if (*count < room) {
            memset(&list[*count], 0, sizeof *list);
            list[*count].pid = !strcmp(word, "self") ? getpid() : atoi(word);
        }
        ++*count;
    }
    if (*count > room) return INSUFFICIENT_SIZE; /* the caller asks again */
    return text(device->name, "processes", &answer);
}
