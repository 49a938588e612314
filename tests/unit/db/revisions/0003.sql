BEGIN TRANSACTION;
CREATE TABLE artifact (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	media_type TEXT NOT NULL, 
	content BLOB NOT NULL, 
	CONSTRAINT pk_artifact PRIMARY KEY (id), 
	CONSTRAINT fk_artifact_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE, 
	CONSTRAINT uq_artifact_trial_id_name UNIQUE (trial_id, name)
);
CREATE TABLE calibration (
	id INTEGER NOT NULL, 
	machine_id INTEGER NOT NULL, 
	measured_at DATETIME NOT NULL, 
	name TEXT NOT NULL, 
	value DOUBLE, 
	reason TEXT, 
	CONSTRAINT pk_calibration PRIMARY KEY (id), 
	CONSTRAINT fk_calibration_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (id), 
	CONSTRAINT uq_calibration_machine_id_name_measured_at UNIQUE (machine_id, name, measured_at)
);
CREATE TABLE "experiment_case" (
	id INTEGER NOT NULL, 
	identity VARCHAR(64) NOT NULL, 
	canonical JSON NOT NULL, 
	mode TEXT NOT NULL, 
	data TEXT, 
	image_size INTEGER, 
	batch_size INTEGER, 
	precision TEXT, 
	device TEXT, 
	world_size INTEGER, 
	zero_stage INTEGER, 
	CONSTRAINT pk_experiment_case PRIMARY KEY (id), 
	CONSTRAINT uq_experiment_case_identity UNIQUE (identity)
);
INSERT INTO "experiment_case" VALUES(1,'59c5d5ca03c1c457f524cfca596c1b6ad4ff3760b50aed555a2600cfe81649ed','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "mode": "profile", "data": "digits"}','profile','digits',8,8,'fp32','auto',1,0);
INSERT INTO "experiment_case" VALUES(2,'c10206ac17408e7f25cede8eae0db36ca3a0b753ae7e1dbef4c76c0503648ee7','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "mode": "train", "data": "digits", "batch_size": 12, "timing": {"max_steps": 12, "max_time_s": 0.3}}','train','digits',8,12,'fp32','auto',1,0);
INSERT INTO "experiment_case" VALUES(3,'b5270faa89935a628b0604421f3b37b5b4fe0861413ea2c16e19f2f7f897ccd0','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "mode": "infer", "data": "digits", "batch_size": 12, "device": "cuda", "timing": {"max_steps": 12, "max_time_s": 0.3}}','infer','digits',8,12,'fp32','cuda',1,0);
INSERT INTO "experiment_case" VALUES(4,'e12b0c1cc99c5d04cafde0bb679e14c84e665a6badca644a29eaad7e65c42b1e','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "mode": "infer", "data": "digits", "batch_size": 12, "timing": {"max_steps": 12, "max_time_s": 0.3}}','infer','digits',8,12,'fp32','auto',1,0);
CREATE TABLE machine (
	id INTEGER NOT NULL, 
	content_hash VARCHAR(64) NOT NULL, 
	hostname TEXT NOT NULL, 
	os TEXT NOT NULL, 
	cpu_model TEXT, 
	cpu_cores INTEGER NOT NULL, 
	memory_bytes BIGINT NOT NULL, 
	gpu_name TEXT, 
	gpu_count INTEGER NOT NULL, 
	gpu_memory_bytes BIGINT, 
	gpu_driver TEXT, 
	python TEXT NOT NULL, 
	versions JSON NOT NULL, 
	"commit" TEXT, 
	is_dirty BOOLEAN, 
	CONSTRAINT pk_machine PRIMARY KEY (id), 
	CONSTRAINT uq_machine_content_hash UNIQUE (content_hash)
);
INSERT INTO "machine" VALUES(1,'33f9fcc7f79273d31b878692fb7600f19fd3cd387c1542c2eb5a27a72f82cc36','vm','Linux 6.18.44-fc-v669 x86_64','AMD EPYC',2,25276502016,NULL,0,NULL,NULL,'3.11.7','{"tlbench": "0.1.1.dev78+g07af083c6", "torch": "2.14.1", "deepspeed": "0.19.8", "ray": "2.60.0", "timm": "1.0.31", "cuda": "13.0", "nccl": "2.30.7"}','07af083c65488930174b18e5455aac5401e29bc3',0);
CREATE TABLE metric (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	rank INTEGER NOT NULL, 
	value DOUBLE, 
	reason TEXT, 
	CONSTRAINT pk_metric PRIMARY KEY (id), 
	CONSTRAINT fk_metric_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE, 
	CONSTRAINT uq_metric_trial_id_name_rank UNIQUE (trial_id, name, rank)
);
INSERT INTO "metric" VALUES(1,1,'import_time_s',-1,3.95832549799524713307e+00,NULL);
INSERT INTO "metric" VALUES(2,1,'macs',-1,20640.0,NULL);
INSERT INTO "metric" VALUES(3,1,'flops',-1,41280.0,NULL);
INSERT INTO "metric" VALUES(4,1,'train_flops',-1,117696.0,NULL);
INSERT INTO "metric" VALUES(5,1,'params',-1,5498.0,NULL);
INSERT INTO "metric" VALUES(6,1,'trainable_params',-1,5498.0,NULL);
INSERT INTO "metric" VALUES(7,1,'counter_macs',-1,20640.0,NULL);
INSERT INTO "metric" VALUES(8,1,'profiler_macs',-1,20640.0,NULL);
INSERT INTO "metric" VALUES(9,2,'import_time_s',-1,2.33974723200663,NULL);
INSERT INTO "metric" VALUES(10,2,'idle_power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(11,2,'macs',-1,20640.0,NULL);
INSERT INTO "metric" VALUES(12,2,'flops',-1,41280.0,NULL);
INSERT INTO "metric" VALUES(13,2,'train_flops',-1,117696.0,NULL);
INSERT INTO "metric" VALUES(14,2,'params',-1,5498.0,NULL);
INSERT INTO "metric" VALUES(15,2,'trainable_params',-1,5498.0,NULL);
INSERT INTO "metric" VALUES(16,2,'load_time_s',-1,4.80887190400972,NULL);
INSERT INTO "metric" VALUES(17,2,'first_step_time_s',-1,5.31895118998363614082e-01,NULL);
INSERT INTO "metric" VALUES(18,2,'foreign_cpu_fraction',-1,5.07992895209198103145e-01,NULL);
INSERT INTO "metric" VALUES(19,2,'steal_fraction',-1,1.7761989343060152497e-03,NULL);
INSERT INTO "metric" VALUES(20,2,'cpu_clock_hz',-1,NULL,'the kernel tells the nominal clock at most, as in most virtual machines');
INSERT INTO "metric" VALUES(21,2,'involuntary_switches_per_s',-1,4.29931985465147363349e+02,NULL);
INSERT INTO "metric" VALUES(22,2,'gpu_utilization_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(23,2,'gpu_memory_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(24,2,'gpu_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(25,2,'gpu_memory_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(26,2,'gpu_temperature_celsius',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(27,2,'power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(28,2,'throttled_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(29,2,'thermal_slowdown_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(30,2,'foreign_processes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(31,2,'energy_j_per_sample',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(32,2,'predicted_memory_bytes',-1,183584.0,NULL);
INSERT INTO "metric" VALUES(33,2,'predicted_memory_growth_bytes',-1,86400.0,NULL);
INSERT INTO "metric" VALUES(34,2,'peak_memory_host_rss_bytes',-1,839270400.0,NULL);
INSERT INTO "metric" VALUES(35,2,'peak_memory_host_growth_bytes',-1,114688.0,NULL);
INSERT INTO "metric" VALUES(36,2,'peak_memory_allocated_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(37,2,'peak_memory_reserved_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(38,2,'peak_memory_device_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(39,2,'loss',-1,2.16995978355407714843e+00,NULL);
INSERT INTO "metric" VALUES(40,2,'build_time_s',-1,1.93092570900626014918e+00,NULL);
INSERT INTO "metric" VALUES(41,2,'measure_time_s',-1,5.19342162300017662346e+00,NULL);
INSERT INTO "metric" VALUES(42,2,'step_time_p50_s',-1,2.83564741497684735804e-01,NULL);
INSERT INTO "metric" VALUES(43,2,'throughput_samples_per_s',-1,4.23183782885714592208e+01,NULL);
INSERT INTO "metric" VALUES(44,2,'throughput_per_device_samples_per_s',-1,4.23183782885714592208e+01,NULL);
INSERT INTO "metric" VALUES(45,2,'step_time_p50_low_s',-1,NULL,'10 steps are too few');
INSERT INTO "metric" VALUES(46,2,'step_time_p50_high_s',-1,NULL,'10 steps are too few');
INSERT INTO "metric" VALUES(47,2,'step_time_p90_s',-1,0.52985560290399,NULL);
INSERT INTO "metric" VALUES(48,2,'step_time_p99_s',-1,NULL,'10 steps are too few');
INSERT INTO "metric" VALUES(49,2,'outlier_steps',-1,0.0,NULL);
INSERT INTO "metric" VALUES(50,2,'mfu',-1,NULL,'no published fp32 peak of AMD EPYC is known, and `tlbench calibrate` has measured none on this machine');
INSERT INTO "metric" VALUES(51,4,'import_time_s',-1,2.22398229100508615374e+00,NULL);
INSERT INTO "metric" VALUES(52,4,'idle_power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(53,4,'macs',-1,20640.0,NULL);
INSERT INTO "metric" VALUES(54,4,'flops',-1,41280.0,NULL);
INSERT INTO "metric" VALUES(55,4,'params',-1,5498.0,NULL);
INSERT INTO "metric" VALUES(56,4,'trainable_params',-1,5498.0,NULL);
INSERT INTO "metric" VALUES(57,4,'load_time_s',-1,2.82722421200014650821e+00,NULL);
INSERT INTO "metric" VALUES(58,4,'first_step_time_s',-1,6.45572469948092475533e-02,NULL);
INSERT INTO "metric" VALUES(59,4,'foreign_cpu_fraction',-1,NULL,'steps were timed for 0.02 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(60,4,'steal_fraction',-1,NULL,'steps were timed for 0.02 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(61,4,'cpu_clock_hz',-1,NULL,'the kernel tells the nominal clock at most, as in most virtual machines');
INSERT INTO "metric" VALUES(62,4,'involuntary_switches_per_s',-1,207.055507553384,NULL);
INSERT INTO "metric" VALUES(63,4,'gpu_utilization_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(64,4,'gpu_memory_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(65,4,'gpu_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(66,4,'gpu_memory_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(67,4,'gpu_temperature_celsius',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(68,4,'power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(69,4,'throttled_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(70,4,'thermal_slowdown_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(71,4,'foreign_processes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(72,4,'energy_j_per_sample',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(73,4,'latency_p50_s',-1,1.209034002386033535e-03,NULL);
INSERT INTO "metric" VALUES(74,4,'latency_p90_s',-1,1.84974016097839977224e-02,NULL);
INSERT INTO "metric" VALUES(75,4,'latency_p99_s',-1,NULL,'33 steps are too few');
INSERT INTO "metric" VALUES(76,4,'stage_embedding_macs',-1,3072.0,NULL);
INSERT INTO "metric" VALUES(77,4,'stage_before_macs',-1,17408.0,NULL);
INSERT INTO "metric" VALUES(78,4,'stage_head_macs',-1,160.0,NULL);
INSERT INTO "metric" VALUES(79,4,'stage_embedding_time_s',-1,1.16611150006065145134e-02,NULL);
INSERT INTO "metric" VALUES(80,4,'stage_before_time_s',-1,1.11990755001897923648e-01,NULL);
INSERT INTO "metric" VALUES(81,4,'stage_head_time_s',-1,6.96569700085092335939e-03,NULL);
INSERT INTO "metric" VALUES(82,4,'removal_ceiling_ratio',-1,NULL,'the model reduces no tokens, and no block comes after');
INSERT INTO "metric" VALUES(83,4,'stage_embedding_memory_bytes',-1,8192.0,NULL);
INSERT INTO "metric" VALUES(84,4,'stage_before_memory_bytes',-1,20480.0,NULL);
INSERT INTO "metric" VALUES(85,4,'stage_head_memory_bytes',-1,12288.0,NULL);
INSERT INTO "metric" VALUES(86,4,'predicted_memory_bytes',-1,55784.0,NULL);
INSERT INTO "metric" VALUES(87,4,'predicted_memory_growth_bytes',-1,24576.0,NULL);
INSERT INTO "metric" VALUES(88,4,'peak_memory_host_rss_bytes',-1,699506688.0,NULL);
INSERT INTO "metric" VALUES(89,4,'peak_memory_host_growth_bytes',-1,32768.0,NULL);
INSERT INTO "metric" VALUES(90,4,'peak_memory_allocated_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(91,4,'peak_memory_reserved_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(92,4,'peak_memory_device_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(93,4,'build_time_s',-1,5.4918737900152336806e-01,NULL);
INSERT INTO "metric" VALUES(94,4,'measure_time_s',-1,2.03809050800919067114e+00,NULL);
INSERT INTO "metric" VALUES(95,4,'step_time_p50_s',-1,8.14869497844483703374e-04,NULL);
INSERT INTO "metric" VALUES(96,4,'throughput_samples_per_s',-1,1.47262844317313956708e+04,NULL);
INSERT INTO "metric" VALUES(97,4,'throughput_per_device_samples_per_s',-1,1.47262844317313956708e+04,NULL);
INSERT INTO "metric" VALUES(98,4,'step_time_p50_low_s',-1,NULL,'12 steps are too few');
INSERT INTO "metric" VALUES(99,4,'step_time_p50_high_s',-1,NULL,'12 steps are too few');
INSERT INTO "metric" VALUES(100,4,'step_time_p90_s',-1,5.22665859170956710599e-03,NULL);
INSERT INTO "metric" VALUES(101,4,'step_time_p99_s',-1,NULL,'12 steps are too few');
INSERT INTO "metric" VALUES(102,4,'outlier_steps',-1,2.0,NULL);
INSERT INTO "metric" VALUES(103,4,'mfu',-1,NULL,'no published fp32 peak of AMD EPYC is known, and `tlbench calibrate` has measured none on this machine');
CREATE TABLE "run" (
	id INTEGER NOT NULL, 
	suite TEXT NOT NULL, 
	description TEXT NOT NULL, 
	suite_json JSON NOT NULL, 
	source TEXT NOT NULL, 
	command TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	planned INTEGER NOT NULL, 
	started_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	version TEXT NOT NULL, 
	uid VARCHAR(32) NOT NULL, 
	origin TEXT, 
	ended_by TEXT, 
	note TEXT NOT NULL, 
	CONSTRAINT pk_run PRIMARY KEY (id), 
	CONSTRAINT uq_run_uid UNIQUE (uid)
);
INSERT INTO "run" VALUES(1,'older','','{"name": "older", "description": "", "cases": [{"model": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "profile", "data": "digits", "classes": null, "batch_size": 8, "memory_limit_gib": null, "precision": "fp32", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "auto", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"kind": "adamw", "learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 10, "max_steps": 1000, "max_time_s": 10.0}, "fit": {"epochs": 10, "steps": null, "warmup_epochs": 1.0, "warmup_steps": null, "schedule": "cosine", "end_learning_rate": 0.0, "loss": "softmax", "label_smoothing": 0.0, "head_bias": 0.0, "ema_decay": 0.0, "eval_epochs": 1, "target_top1_percent": 90.0}, "augment": {"crop": "whole", "min_area": 0.08, "min_scale": 1.0, "max_scale": 1.0, "flip": 0.0, "rand_augment_layers": 0, "rand_augment_magnitude": 0, "color_jitter": 0.0, "grayscale": 0.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}, "view": {"normalize": "half", "crop_fraction": null, "interpolation": "bilinear", "frame_stride": 1, "temporal_clips": 1, "spatial_crops": 1, "max_unreadable": 0.01}, "fewshot": {"shots": "1,5,10,25", "seeds": 3, "convention": "big_vision", "l2": 1024.0}, "checkpoint": null}, {"model": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "infer", "data": "digits", "classes": null, "batch_size": 12, "memory_limit_gib": null, "precision": "fp32", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "auto", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"kind": "adamw", "learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 10, "max_steps": 12, "max_time_s": 0.3}, "fit": {"epochs": 10, "steps": null, "warmup_epochs": 1.0, "warmup_steps": null, "schedule": "cosine", "end_learning_rate": 0.0, "loss": "softmax", "label_smoothing": 0.0, "head_bias": 0.0, "ema_decay": 0.0, "eval_epochs": 1, "target_top1_percent": 90.0}, "augment": {"crop": "whole", "min_area": 0.08, "min_scale": 1.0, "max_scale": 1.0, "flip": 0.0, "rand_augment_layers": 0, "rand_augment_magnitude": 0, "color_jitter": 0.0, "grayscale": 0.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}, "view": {"normalize": "half", "crop_fraction": null, "interpolation": "bilinear", "frame_stride": 1, "temporal_clips": 1, "spatial_crops": 1, "max_unreadable": 0.01}, "fewshot": {"shots": "1,5,10,25", "seeds": 3, "convention": "big_vision", "l2": 1024.0}, "checkpoint": null}, {"model": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "train", "data": "digits", "classes": null, "batch_size": 12, "memory_limit_gib": null, "precision": "fp32", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "auto", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"kind": "adamw", "learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 10, "max_steps": 12, "max_time_s": 0.3}, "fit": {"epochs": 10, "steps": null, "warmup_epochs": 1.0, "warmup_steps": null, "schedule": "cosine", "end_learning_rate": 0.0, "loss": "softmax", "label_smoothing": 0.0, "head_bias": 0.0, "ema_decay": 0.0, "eval_epochs": 1, "target_top1_percent": 90.0}, "augment": {"crop": "whole", "min_area": 0.08, "min_scale": 1.0, "max_scale": 1.0, "flip": 0.0, "rand_augment_layers": 0, "rand_augment_magnitude": 0, "color_jitter": 0.0, "grayscale": 0.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}, "view": {"normalize": "half", "crop_fraction": null, "interpolation": "bilinear", "frame_stride": 1, "temporal_clips": 1, "spatial_crops": 1, "max_unreadable": 0.01}, "fewshot": {"shots": "1,5,10,25", "seeds": 3, "convention": "big_vision", "l2": 1024.0}, "checkpoint": null}, {"model": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "infer", "data": "digits", "classes": null, "batch_size": 12, "memory_limit_gib": null, "precision": "fp32", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "cuda", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"kind": "adamw", "learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 10, "max_steps": 12, "max_time_s": 0.3}, "fit": {"epochs": 10, "steps": null, "warmup_epochs": 1.0, "warmup_steps": null, "schedule": "cosine", "end_learning_rate": 0.0, "loss": "softmax", "label_smoothing": 0.0, "head_bias": 0.0, "ema_decay": 0.0, "eval_epochs": 1, "target_top1_percent": 90.0}, "augment": {"crop": "whole", "min_area": 0.08, "min_scale": 1.0, "max_scale": 1.0, "flip": 0.0, "rand_augment_layers": 0, "rand_augment_magnitude": 0, "color_jitter": 0.0, "grayscale": 0.0, "erasing": 0.0, "mixup": 0.0, "cutmix": 0.0}, "view": {"normalize": "half", "crop_fraction": null, "interpolation": "bilinear", "frame_stride": 1, "temporal_clips": 1, "spatial_crops": 1, "max_unreadable": 0.01}, "fewshot": {"shots": "1,5,10,25", "seeds": 3, "convention": "big_vision", "l2": 1024.0}, "checkpoint": null}], "repeats": {"profile": 1, "infer": 1, "train": 1, "fit": 1, "fewshot": 1, "evaluate": 1}, "seed": 0, "trial_timeout_s": 1800.0, "paths": {}, "storage": null, "trace": false, "sources": {}}','suite.yaml','tlbench run suite.yaml --db old.db','finished',4,'2026-11-23 12:22:06.880118','2026-11-23 12:22:32.626084','0.1.1.dev78+g07af083c6','e2a90e9d95f64ee89c94ca068036f0d8',NULL,NULL,'');
CREATE TABLE run_tag (
	run_id INTEGER NOT NULL, 
	tag TEXT NOT NULL, 
	CONSTRAINT pk_run_tag PRIMARY KEY (run_id, tag), 
	CONSTRAINT fk_run_tag_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
CREATE TABLE series (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	rank INTEGER NOT NULL, 
	"values" BLOB NOT NULL, 
	CONSTRAINT pk_series PRIMARY KEY (id), 
	CONSTRAINT fk_series_trial_id_trial FOREIGN KEY(trial_id) REFERENCES trial (id) ON DELETE CASCADE, 
	CONSTRAINT uq_series_trial_id_name_rank UNIQUE (trial_id, name, rank)
);
INSERT INTO "series" VALUES(1,2,'warmup_step_time_s',-1,X'0000A0E94805E13F0000AAFAA68AE03F');
INSERT INTO "series" VALUES(2,2,'step_time_s',-1,X'0000B01C1952E03F0000848AF1A4E03F0000CA65A1E2E03F00007ECB1896E13F000094005874E03F0000C0B97936953F000080397AD6973F000000609DD2953F00008094A47AA33F000020E1393DAD3F');
INSERT INTO "series" VALUES(3,4,'warmup_step_time_s',-1,X'000090E0D286B03F000000B07EC2623F000000C45E6F553F000000906E7D4E3F000000D823C8493F000000D07C4B4C3F00000065D078763F000000182705503F000000C0A6AA4D3F000080203480843F000000A03F6D643F000000FED1C5833F00000072ECD86C3F00000020486D4B3F000000682F5D493F000000608EEA463F00008052D9EF8A3F00000020C25A4D3F000000C4F77F673F00000098ED954C3F000000C08E98463F000000402555483F');
INSERT INTO "series" VALUES(4,4,'step_time_s',-1,X'000000060BCC7F3F000000C8A9CF4B3F000000803A5B463F000000109497493F0000003F0D4F773F00000030BD0F4D3F000000701638513F000000C053484F3F000000701DAC473F000000307D15473F00000028F54D463F00000010E979453F');
INSERT INTO "series" VALUES(5,4,'latency_s',-1,X'000010F2914CBF3F000000DCE307B63F0000007010175A3F000000C8F1D3503F00000066B551613F00000078733E503F000000107E224C3F000000EE6C09753F00000030F5774F3F000000305B29693F000000106C78543F000000D4EF31543F000000249713553F000000E864DF4E3F000000600ECF533F0000001C9F7F513F00000031BE818C3F00000090245B4F3F00000048E7FE453F000000807990473F00000090B5F8443F00000052384B613F000000280BB8473F000000975003763F000000B82200513F000000288F60503F0000C0BC021D943F0000004A0EBC843F00000090FA9E503F00000080335F453F000000D89F00443F00000048F666763F0000A0BB5C8BB93F');
CREATE TABLE tlbench_revision (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT tlbench_revision_pkc PRIMARY KEY (version_num)
);
INSERT INTO "tlbench_revision" VALUES('0003');
CREATE TABLE "trial" (
	id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	case_id INTEGER NOT NULL, 
	machine_id INTEGER, 
	model TEXT NOT NULL, 
	given_name TEXT, 
	repeat INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	seed BIGINT, 
	status VARCHAR(16) NOT NULL, 
	reason TEXT, 
	traceback TEXT, 
	started_at DATETIME NOT NULL, 
	wall_time_s DOUBLE, 
	command TEXT NOT NULL, 
	notes JSON NOT NULL, 
	validity VARCHAR(16), 
	doubts JSON NOT NULL, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_case_id_experiment_case FOREIGN KEY(case_id) REFERENCES experiment_case (id), 
	CONSTRAINT uq_trial_run_id_position UNIQUE (run_id, position), 
	CONSTRAINT fk_trial_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE, 
	CONSTRAINT fk_trial_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (id)
);
INSERT INTO "trial" VALUES(1,1,1,1,'tiny','tiny',0,0,0,'ok',NULL,NULL,'2026-11-23 12:22:06.893206',8.3856442230026,'printf %s ''{"name": "repeat", "models": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "profile", "data": "digits"}'' | tlbench run -','{}',NULL,'[]');
INSERT INTO "trial" VALUES(2,1,2,1,'tiny','tiny',0,1,0,'ok',NULL,NULL,'2026-11-23 12:22:15.296194',1.12134657720016548407e+01,'printf %s ''{"name": "repeat", "models": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "train", "data": "digits", "batch_size": 12, "timing": {"max_steps": 12, "max_time_s": 0.3}}'' | tlbench run -','{"stopped_by": "max_time", "steady_state": "warming", "warmup": "out of time after 2 steps"}','invalid','["other processes took 50.8 % of the cores'' time", "the steps were getting faster while they were timed"]');
INSERT INTO "trial" VALUES(3,1,3,NULL,'tiny','tiny',0,2,0,'skipped','needs 1 x cuda on 1 node(s); the cluster has a node with 2 CPUs and 0 GPUs',NULL,'2026-11-23 12:22:26.528391',5.94180019106715917587e-05,'printf %s ''{"name": "repeat", "models": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "infer", "data": "digits", "batch_size": 12, "device": "cuda", "timing": {"max_steps": 12, "max_time_s": 0.3}}'' | tlbench run -','{}',NULL,'[]');
INSERT INTO "trial" VALUES(4,1,4,1,'tiny','tiny',0,3,0,'ok',NULL,NULL,'2026-11-23 12:22:26.538295',6.07559715901152230799e+00,'printf %s ''{"name": "repeat", "models": {"name": "tiny", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "infer", "data": "digits", "batch_size": 12, "timing": {"max_steps": 12, "max_time_s": 0.3}}'' | tlbench run -','{"stopped_by": "max_steps", "steady_state": "flat", "warmup": "settled after 22 steps"}','valid','[]');
CREATE INDEX ix_machine_cpu_model ON machine (cpu_model);
CREATE INDEX ix_machine_gpu_name ON machine (gpu_name);
CREATE INDEX ix_run_tag_tag ON run_tag (tag);
CREATE INDEX ix_trial_started_at ON trial (started_at);
CREATE INDEX ix_trial_case_id ON trial (case_id);
CREATE INDEX ix_trial_model ON trial (model);
CREATE INDEX ix_trial_machine_id ON trial (machine_id);
CREATE INDEX ix_run_started_at ON run (started_at);
CREATE INDEX ix_run_origin ON run (origin);
CREATE INDEX ix_metric_name_rank_trial_id_value ON metric (name, rank, trial_id, value);
CREATE VIEW trial_view AS
SELECT
    trial.id AS trial, trial.run_id AS run, run.suite, run.origin, trial.started_at,
    trial.model, experiment_case.identity AS identity, experiment_case.mode,
    experiment_case.data, experiment_case.image_size, experiment_case.batch_size,
    experiment_case.precision, experiment_case.device, experiment_case.zero_stage,
    experiment_case.world_size, machine.hostname AS machine,
    machine.gpu_name AS gpu, machine.cpu_model AS cpu, trial.repeat, trial.status,
    trial.reason, trial.validity, trial.wall_time_s,
    
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'throughput_samples_per_s' AND metric.rank = -1
    ) AS throughput_samples_per_s,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'step_time_p50_s' AND metric.rank = -1
    ) AS step_time_p50_s,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'latency_p50_s' AND metric.rank = -1
    ) AS latency_p50_s,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'peak_memory_allocated_bytes' AND metric.rank = -1
    ) AS peak_memory_allocated_bytes,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'peak_memory_host_growth_bytes' AND metric.rank = -1
    ) AS peak_memory_host_growth_bytes,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'energy_j_per_sample' AND metric.rank = -1
    ) AS energy_j_per_sample,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'mfu' AND metric.rank = -1
    ) AS mfu,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'macs' AND metric.rank = -1
    ) AS macs,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'params' AND metric.rank = -1
    ) AS params,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'top1_percent' AND metric.rank = -1
    ) AS top1_percent,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'map_percent' AND metric.rank = -1
    ) AS map_percent,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'fewshot_5_top1_percent' AND metric.rank = -1
    ) AS fewshot_5_top1_percent,
    (SELECT value FROM metric
     WHERE metric.trial_id = trial.id AND metric.name = 'time_to_accuracy_s' AND metric.rank = -1
    ) AS time_to_accuracy_s
FROM trial
JOIN run ON run.id = trial.run_id
JOIN experiment_case ON experiment_case.id = trial.case_id
LEFT JOIN machine ON machine.id = trial.machine_id;
CREATE VIEW metric_view AS
SELECT
    trial.id AS trial, trial.run_id AS run, run.suite, trial.started_at, trial.model,
    experiment_case.identity AS identity, experiment_case.mode, trial.status,
    trial.validity, machine.hostname AS machine, machine.gpu_name AS gpu,
    metric.name AS metric, metric.rank, metric.value, metric.reason
FROM metric
JOIN trial ON trial.id = metric.trial_id
JOIN run ON run.id = trial.run_id
JOIN experiment_case ON experiment_case.id = trial.case_id
LEFT JOIN machine ON machine.id = trial.machine_id;
COMMIT;
