"""The plan of an experiment: the image sets, updates and warnings of all of its steps."""

import dataclasses

import bic_layer
import exemplar
from data import lists, samples
from runtime import machine, progress, results, run_log
from runtime import settings as settings_lib
from runtime.signals import STOP


@dataclasses.dataclass
class Run:
    """One experiment while it runs.

    Fixed:
        settings: the experiment's Settings.
        data_dir, model_dir: its folders.
        digests: {name of a list file: its SHA-256}.
        machine: the Machine that computes.
        pretrained: the Pretrained that the first step starts from, or None.

    Changing:
        split: the Split. Steps take out bad images, and of old classes all but the exemplars.
        time_left: the TimeLeft, once the steps are planned.
        keeps_checkpoints: whether finished steps keep their classifiers.
    """

    settings: settings_lib.Settings
    data_dir: str
    model_dir: str
    digests: dict
    machine: machine.Machine
    pretrained: object
    split: lists.Split
    time_left: progress.TimeLeft = None
    keeps_checkpoints: bool = False

    def step_samples(self, step, exemplars):
        """Return the (training, validation, test) Samples of `step`.

        `exemplars`: one int64 array of indices into the train list per old class, as stored.
        """
        settings = self.settings
        old, seen = settings.num_old(step), settings.num_seen(step)
        # Step 0 fits nothing on its validation images. All are counted, as in the authors' log.
        num_validation = (exemplar.num_validation_images(settings, step) if step
                          else exemplar.validation_pool(settings))
        return (samples.training_samples(self.split, range(old, seen), exemplars),
                samples.validation_samples(self.split, seen, num_validation),
                samples.test_samples(self.split, settings.groups[:step + 2]))

    def planned_samples(self):
        """Yield the step_samples of every step; the first images stand in for chosen exemplars."""
        settings, exemplars = self.settings, []
        for step in range(settings.num_steps):
            yield self.step_samples(step, exemplars)
            num_stored = exemplar.num_stored_exemplars(settings, step)
            new = self.split.train[settings.num_old(step):settings.num_seen(step)]
            exemplars = [indices[:num_stored] for indices in exemplars + new]

    def schedules(self, step, step_samples):
        """Return the Schedules of both stages; the second is None without a correction."""
        training, validation, _ = step_samples
        classifier = settings_lib.schedule(self.settings, len(training.indices))
        if step == 0 or not self.settings.bias_correction:
            return classifier, None
        return classifier, settings_lib.schedule(
            self.settings, len(validation.indices), bic_layer.EPOCHS_FACTOR)


def make_plan(run, log_steps=False):
    """Count images and updates of all steps, to warn of unsuitable settings and set run.time_left.

    Steps do not use these counts. They make their own from the exemplars actually chosen.

    `log_steps`: whether to log the images and updates of each step.
    """
    planned = []
    for step, step_samples in enumerate(run.planned_samples()):
        STOP.check()
        planned.append(run.schedules(step, step_samples))
        if log_steps:
            run_log.log_counts(step, [len(part.indices) for part in step_samples])
            run_log.log_updates(*planned[-1])
    run_log.warn(settings_lib.schedule_warnings(run.settings, planned))
    run_log.warn(exemplar.memory_warnings(run.settings, run.split))
    run_log.warn(results.unequal_test_warnings(run.split))
    run.time_left = progress.TimeLeft([classifier.num_presented for classifier, _ in planned])
