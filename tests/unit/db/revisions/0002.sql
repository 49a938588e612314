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
INSERT INTO "calibration" VALUES(1,1,'2026-11-23 00:28:42.099280','noise_floor_fraction',1.86494756295709507298e+00,NULL);
INSERT INTO "calibration" VALUES(2,1,'2026-11-23 00:28:42.099280','noise_floor_low_fraction',7.29822640437037151173e-01,NULL);
INSERT INTO "calibration" VALUES(3,1,'2026-11-23 00:28:42.099280','noise_floor_high_fraction',7.4520309053106166177e+02,NULL);
INSERT INTO "calibration" VALUES(4,1,'2026-11-23 00:28:42.099280','noise_floor_pairs',2.0,NULL);
INSERT INTO "calibration" VALUES(5,1,'2026-11-23 00:28:42.099280','matmul_fp32_flops_per_s',20312875023.7816,NULL);
INSERT INTO "calibration" VALUES(6,1,'2026-11-23 00:28:42.099280','matmul_tf32_flops_per_s',NULL,'precision tf32 needs a GPU; this is a CPU');
INSERT INTO "calibration" VALUES(7,1,'2026-11-23 00:28:42.099280','matmul_bf16_flops_per_s',9.6813106813186340328e+10,NULL);
INSERT INTO "calibration" VALUES(8,1,'2026-11-23 00:28:42.099280','matmul_fp16_flops_per_s',NULL,'precision fp16 needs a GPU; this is a CPU');
INSERT INTO "calibration" VALUES(9,1,'2026-11-23 00:28:42.099280','copy_bytes_per_s',1.35587931332910861966e+10,NULL);
INSERT INTO "calibration" VALUES(10,1,'2026-11-23 00:28:42.099280','host_to_device_bytes_per_s',NULL,'measured on a GPU only');
INSERT INTO "calibration" VALUES(11,1,'2026-11-23 00:28:42.099280','timer_s',1.58172791714820850867e-07,NULL);
INSERT INTO "calibration" VALUES(12,1,'2026-11-23 00:28:42.099280','timer_resolution_s',4.99931047670543193817e-08,NULL);
CREATE TABLE "experiment_case" (
	id INTEGER NOT NULL, 
	identity VARCHAR(64) NOT NULL, 
	canonical JSON NOT NULL, 
	mode TEXT NOT NULL, 
	data TEXT NOT NULL, 
	image_size INTEGER NOT NULL, 
	batch_size INTEGER, 
	precision TEXT NOT NULL, 
	device TEXT NOT NULL, 
	world_size INTEGER NOT NULL, 
	zero_stage INTEGER NOT NULL, 
	CONSTRAINT pk_experiment_case PRIMARY KEY (id), 
	CONSTRAINT uq_experiment_case_identity UNIQUE (identity)
);
INSERT INTO "experiment_case" VALUES(1,'1432c50c13a39b7fc085b91a0d778e4e5bf1a98ccf5fd50778de5dd5007220b1','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "mode": "profile"}','profile','synthetic',8,8,'fp32','auto',1,0);
INSERT INTO "experiment_case" VALUES(2,'dd5984751eb4ba3d1b923dc187e89f9273595669be6db6610148f82750f995c4','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "mode": "infer", "batch_size": 2, "precision": "fp16", "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}','infer','synthetic',8,2,'fp16','auto',1,0);
INSERT INTO "experiment_case" VALUES(3,'9ee74e7bb5d1877d2a747806f95f4d0e42ee2cacde5ccf8b235ae4295e80644c','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "mode": "infer", "batch_size": "max", "memory_limit_gib": 0.001, "device": "cpu", "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}','infer','synthetic',8,NULL,'fp32','cpu',1,0);
INSERT INTO "experiment_case" VALUES(4,'509fcf7a05987fbe84560cac59640023bee9c9536cd2abfe6591ca59f6c6ef50','{"model": {"patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "mode": "infer", "batch_size": 2, "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}','infer','synthetic',8,2,'fp32','auto',1,0);
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
INSERT INTO "machine" VALUES(1,'655a85e4f76d876153979d7339f9e83c901efa61e6a57bbb8123807592b80c88','vm','Linux 6.18.44-fc-v669 x86_64','AMD EPYC',2,25276502016,NULL,0,NULL,NULL,'3.11.7','{"tlbench": "0.1.1.dev38+g62a53afbb", "torch": "2.14.1", "deepspeed": "0.19.8", "ray": "2.60.0", "timm": "1.0.31", "cuda": "13.0", "nccl": "2.30.7"}','62a53afbb',0);
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
INSERT INTO "metric" VALUES(1,1,'import_time_s',-1,2.78919665700232144445e+00,NULL);
INSERT INTO "metric" VALUES(2,1,'macs',-1,44672.0,NULL);
INSERT INTO "metric" VALUES(3,1,'flops',-1,89344.0,NULL);
INSERT INTO "metric" VALUES(4,1,'train_flops',-1,261888.0,NULL);
INSERT INTO "metric" VALUES(5,1,'params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(6,1,'trainable_params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(7,1,'counter_macs',-1,44672.0,NULL);
INSERT INTO "metric" VALUES(8,1,'profiler_macs',-1,44672.0,NULL);
INSERT INTO "metric" VALUES(9,2,'import_time_s',-1,1.58247895800013793632e+00,NULL);
INSERT INTO "metric" VALUES(10,3,'import_time_s',-1,2.05641770899819675832e+00,NULL);
INSERT INTO "metric" VALUES(11,3,'idle_power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(12,3,'macs',-1,44672.0,NULL);
INSERT INTO "metric" VALUES(13,3,'flops',-1,89344.0,NULL);
INSERT INTO "metric" VALUES(14,3,'params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(15,3,'trainable_params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(16,3,'load_time_s',-1,2.82291648999671451747e+00,NULL);
INSERT INTO "metric" VALUES(17,3,'first_step_time_s',-1,1.87222612999903503805e-01,NULL);
INSERT INTO "metric" VALUES(18,3,'foreign_cpu_fraction',-1,4.96598639453408763344e-01,NULL);
INSERT INTO "metric" VALUES(19,3,'steal_fraction',-1,1.36054421768669348696e-02,NULL);
INSERT INTO "metric" VALUES(20,3,'cpu_clock_hz',-1,NULL,'the kernel tells the nominal clock at most, as in most virtual machines');
INSERT INTO "metric" VALUES(21,3,'involuntary_switches_per_s',-1,2.89831053456267682131e+02,NULL);
INSERT INTO "metric" VALUES(22,3,'gpu_utilization_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(23,3,'gpu_memory_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(24,3,'gpu_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(25,3,'gpu_memory_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(26,3,'gpu_temperature_celsius',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(27,3,'power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(28,3,'throttled_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(29,3,'thermal_slowdown_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(30,3,'foreign_processes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(31,3,'energy_j_per_sample',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(32,3,'latency_p50_s',-1,5.58078001631656661629e-04,NULL);
INSERT INTO "metric" VALUES(33,3,'latency_p90_s',-1,2.8033017006236981769e-03,NULL);
INSERT INTO "metric" VALUES(34,3,'latency_p99_s',-1,8.69197384097780689771e-03,NULL);
INSERT INTO "metric" VALUES(35,3,'stage_embedding_macs',-1,3072.0,NULL);
INSERT INTO "metric" VALUES(36,3,'stage_before_macs',-1,25600.0,NULL);
INSERT INTO "metric" VALUES(37,3,'stage_head_macs',-1,16000.0,NULL);
INSERT INTO "metric" VALUES(38,3,'stage_embedding_time_s',-1,2.78252999123651534318e-04,NULL);
INSERT INTO "metric" VALUES(39,3,'stage_before_time_s',-1,1.11099900095723569393e-03,NULL);
INSERT INTO "metric" VALUES(40,3,'stage_head_time_s',-1,2.40355999267194420099e-04,NULL);
INSERT INTO "metric" VALUES(41,3,'removal_ceiling_ratio',-1,NULL,'the model reduces no tokens, and no block comes after');
INSERT INTO "metric" VALUES(42,3,'stage_embedding_memory_bytes',-1,110592.0,NULL);
INSERT INTO "metric" VALUES(43,3,'stage_before_memory_bytes',-1,520192.0,NULL);
INSERT INTO "metric" VALUES(44,3,'stage_head_memory_bytes',-1,540672.0,NULL);
INSERT INTO "metric" VALUES(45,3,'predicted_memory_bytes',-1,750560.0,NULL);
INSERT INTO "metric" VALUES(46,3,'predicted_memory_growth_bytes',-1,522240.0,NULL);
INSERT INTO "metric" VALUES(47,3,'peak_memory_host_rss_bytes',-1,702119936.0,NULL);
INSERT INTO "metric" VALUES(48,3,'peak_memory_host_growth_bytes',-1,1163264.0,NULL);
INSERT INTO "metric" VALUES(49,3,'peak_memory_allocated_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(50,3,'peak_memory_reserved_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(51,3,'peak_memory_device_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(52,3,'build_time_s',-1,7.08235412996145896613e-01,NULL);
INSERT INTO "metric" VALUES(53,3,'measure_time_s',-1,2.72968050499912351369e+00,NULL);
INSERT INTO "metric" VALUES(54,3,'step_time_p50_s',-1,1.81898045997513690963e-01,NULL);
INSERT INTO "metric" VALUES(55,3,'throughput_samples_per_s',-1,9.34589478780457511702e+02,NULL);
INSERT INTO "metric" VALUES(56,3,'throughput_per_device_samples_per_s',-1,9.34589478780457511702e+02,NULL);
INSERT INTO "metric" VALUES(57,3,'step_time_p50_low_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(58,3,'step_time_p50_high_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(59,3,'step_time_p90_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(60,3,'step_time_p99_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(61,3,'outlier_steps',-1,0.0,NULL);
INSERT INTO "metric" VALUES(62,3,'max_batch_size',-1,170.0,NULL);
INSERT INTO "metric" VALUES(63,3,'smallest_failing_batch_size',-1,171.0,NULL);
INSERT INTO "metric" VALUES(64,3,'memory_limit_bytes',-1,1073741.824,NULL);
INSERT INTO "metric" VALUES(65,3,'mfu',-1,NULL,'no published fp32 peak of AMD EPYC is known, and `tlbench calibrate` has measured none on this machine');
INSERT INTO "metric" VALUES(66,4,'import_time_s',-1,2.20875923099811188876e+00,NULL);
INSERT INTO "metric" VALUES(67,4,'idle_power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(68,4,'macs',-1,44672.0,NULL);
INSERT INTO "metric" VALUES(69,4,'flops',-1,89344.0,NULL);
INSERT INTO "metric" VALUES(70,4,'params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(71,4,'trainable_params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(72,4,'load_time_s',-1,2.92126851100329076871e+00,NULL);
INSERT INTO "metric" VALUES(73,4,'first_step_time_s',-1,1.40814948004845064133e-01,NULL);
INSERT INTO "metric" VALUES(74,4,'foreign_cpu_fraction',-1,NULL,'steps were timed for 0.02 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(75,4,'steal_fraction',-1,NULL,'steps were timed for 0.02 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(76,4,'cpu_clock_hz',-1,NULL,'the kernel tells the nominal clock at most, as in most virtual machines');
INSERT INTO "metric" VALUES(77,4,'involuntary_switches_per_s',-1,4.20662721416217380001e+02,NULL);
INSERT INTO "metric" VALUES(78,4,'gpu_utilization_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(79,4,'gpu_memory_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(80,4,'gpu_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(81,4,'gpu_memory_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(82,4,'gpu_temperature_celsius',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(83,4,'power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(84,4,'throttled_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(85,4,'thermal_slowdown_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(86,4,'foreign_processes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(87,4,'energy_j_per_sample',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(88,4,'latency_p50_s',-1,0.000816015999589581,NULL);
INSERT INTO "metric" VALUES(89,4,'latency_p90_s',-1,6.17050189903238770899e-03,NULL);
INSERT INTO "metric" VALUES(90,4,'latency_p99_s',-1,1.79034641855104967311e-02,NULL);
INSERT INTO "metric" VALUES(91,4,'stage_embedding_macs',-1,3072.0,NULL);
INSERT INTO "metric" VALUES(92,4,'stage_before_macs',-1,25600.0,NULL);
INSERT INTO "metric" VALUES(93,4,'stage_head_macs',-1,16000.0,NULL);
INSERT INTO "metric" VALUES(94,4,'stage_embedding_time_s',-1,3.00605999655090272426e-04,NULL);
INSERT INTO "metric" VALUES(95,4,'stage_before_time_s',-1,6.65847997879609465599e-04,NULL);
INSERT INTO "metric" VALUES(96,4,'stage_head_time_s',-1,1.39597002998925745487e-04,NULL);
INSERT INTO "metric" VALUES(97,4,'removal_ceiling_ratio',-1,NULL,'the model reduces no tokens, and no block comes after');
INSERT INTO "metric" VALUES(98,4,'stage_embedding_memory_bytes',-1,24576.0,NULL);
INSERT INTO "metric" VALUES(99,4,'stage_before_memory_bytes',-1,8192.0,NULL);
INSERT INTO "metric" VALUES(100,4,'stage_head_memory_bytes',-1,8192.0,NULL);
INSERT INTO "metric" VALUES(101,4,'predicted_memory_bytes',-1,105440.0,NULL);
INSERT INTO "metric" VALUES(102,4,'predicted_memory_growth_bytes',-1,6144.0,NULL);
INSERT INTO "metric" VALUES(103,4,'peak_memory_host_rss_bytes',-1,699158528.0,NULL);
INSERT INTO "metric" VALUES(104,4,'peak_memory_host_growth_bytes',-1,24576.0,NULL);
INSERT INTO "metric" VALUES(105,4,'peak_memory_allocated_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(106,4,'peak_memory_reserved_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(107,4,'peak_memory_device_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(108,4,'build_time_s',-1,6.64592895998794119805e-01,NULL);
INSERT INTO "metric" VALUES(109,4,'measure_time_s',-1,1.60332479100179625675e+00,NULL);
INSERT INTO "metric" VALUES(110,4,'step_time_p50_s',-1,2.23344950063619762659e-03,NULL);
INSERT INTO "metric" VALUES(111,4,'throughput_samples_per_s',-1,8.95475809697197291849e+02,NULL);
INSERT INTO "metric" VALUES(112,4,'throughput_per_device_samples_per_s',-1,8.95475809697197291849e+02,NULL);
INSERT INTO "metric" VALUES(113,4,'step_time_p50_low_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(114,4,'step_time_p50_high_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(115,4,'step_time_p90_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(116,4,'step_time_p99_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(117,4,'outlier_steps',-1,0.0,NULL);
INSERT INTO "metric" VALUES(118,4,'mfu',-1,NULL,'no published fp32 peak of AMD EPYC is known, and `tlbench calibrate` has measured none on this machine');
INSERT INTO "metric" VALUES(119,5,'import_time_s',-1,2.34084013399842660874e+00,NULL);
INSERT INTO "metric" VALUES(120,5,'idle_power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(121,5,'macs',-1,44672.0,NULL);
INSERT INTO "metric" VALUES(122,5,'flops',-1,89344.0,NULL);
INSERT INTO "metric" VALUES(123,5,'params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(124,5,'trainable_params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(125,5,'load_time_s',-1,3.01841884500026935711e+00,NULL);
INSERT INTO "metric" VALUES(126,5,'first_step_time_s',-1,3.89178160039591602981e-02,NULL);
INSERT INTO "metric" VALUES(127,5,'foreign_cpu_fraction',-1,NULL,'steps were timed for 0.48 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(128,5,'steal_fraction',-1,NULL,'steps were timed for 0.48 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(129,5,'cpu_clock_hz',-1,NULL,'the kernel tells the nominal clock at most, as in most virtual machines');
INSERT INTO "metric" VALUES(130,5,'involuntary_switches_per_s',-1,2.02260240675463421667e+02,NULL);
INSERT INTO "metric" VALUES(131,5,'gpu_utilization_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(132,5,'gpu_memory_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(133,5,'gpu_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(134,5,'gpu_memory_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(135,5,'gpu_temperature_celsius',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(136,5,'power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(137,5,'throttled_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(138,5,'thermal_slowdown_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(139,5,'foreign_processes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(140,5,'energy_j_per_sample',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(141,5,'latency_p50_s',-1,1.48014651000266894698e-01,NULL);
INSERT INTO "metric" VALUES(142,5,'latency_p90_s',-1,NULL,'7 steps are too few');
INSERT INTO "metric" VALUES(143,5,'latency_p99_s',-1,NULL,'7 steps are too few');
INSERT INTO "metric" VALUES(144,5,'stage_embedding_macs',-1,3072.0,NULL);
INSERT INTO "metric" VALUES(145,5,'stage_before_macs',-1,25600.0,NULL);
INSERT INTO "metric" VALUES(146,5,'stage_head_macs',-1,16000.0,NULL);
INSERT INTO "metric" VALUES(147,5,'stage_embedding_time_s',-1,5.63376001082360744476e-04,NULL);
INSERT INTO "metric" VALUES(148,5,'stage_before_time_s',-1,7.4840660017798654735e-03,NULL);
INSERT INTO "metric" VALUES(149,5,'stage_head_time_s',-1,3.90509005228523164987e-04,NULL);
INSERT INTO "metric" VALUES(150,5,'removal_ceiling_ratio',-1,NULL,'the model reduces no tokens, and no block comes after');
INSERT INTO "metric" VALUES(151,5,'stage_embedding_memory_bytes',-1,106496.0,NULL);
INSERT INTO "metric" VALUES(152,5,'stage_before_memory_bytes',-1,483328.0,NULL);
INSERT INTO "metric" VALUES(153,5,'stage_head_memory_bytes',-1,577536.0,NULL);
INSERT INTO "metric" VALUES(154,5,'predicted_memory_bytes',-1,750560.0,NULL);
INSERT INTO "metric" VALUES(155,5,'predicted_memory_growth_bytes',-1,522240.0,NULL);
INSERT INTO "metric" VALUES(156,5,'peak_memory_host_rss_bytes',-1,700985344.0,NULL);
INSERT INTO "metric" VALUES(157,5,'peak_memory_host_growth_bytes',-1,1060864.0,NULL);
INSERT INTO "metric" VALUES(158,5,'peak_memory_allocated_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(159,5,'peak_memory_reserved_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(160,5,'peak_memory_device_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(161,5,'build_time_s',-1,6.09873743000207468867e-01,NULL);
INSERT INTO "metric" VALUES(162,5,'measure_time_s',-1,4.30189809599687578156e+00,NULL);
INSERT INTO "metric" VALUES(163,5,'step_time_p50_s',-1,1.11446006503683747723e-01,NULL);
INSERT INTO "metric" VALUES(164,5,'throughput_samples_per_s',-1,1.52540234803640805697e+03,NULL);
INSERT INTO "metric" VALUES(165,5,'throughput_per_device_samples_per_s',-1,1.52540234803640805697e+03,NULL);
INSERT INTO "metric" VALUES(166,5,'step_time_p50_low_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(167,5,'step_time_p50_high_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(168,5,'step_time_p90_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(169,5,'step_time_p99_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(170,5,'outlier_steps',-1,0.0,NULL);
INSERT INTO "metric" VALUES(171,5,'max_batch_size',-1,170.0,NULL);
INSERT INTO "metric" VALUES(172,5,'smallest_failing_batch_size',-1,171.0,NULL);
INSERT INTO "metric" VALUES(173,5,'memory_limit_bytes',-1,1073741.824,NULL);
INSERT INTO "metric" VALUES(174,5,'mfu',-1,NULL,'no published fp32 peak of AMD EPYC is known, and `tlbench calibrate` has measured none on this machine');
INSERT INTO "metric" VALUES(175,6,'import_time_s',-1,2.31036319300619652494e+00,NULL);
INSERT INTO "metric" VALUES(176,6,'idle_power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(177,6,'macs',-1,44672.0,NULL);
INSERT INTO "metric" VALUES(178,6,'flops',-1,89344.0,NULL);
INSERT INTO "metric" VALUES(179,6,'params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(180,6,'trainable_params',-1,24440.0,NULL);
INSERT INTO "metric" VALUES(181,6,'load_time_s',-1,3.09968512200430268421e+00,NULL);
INSERT INTO "metric" VALUES(182,6,'first_step_time_s',-1,7.30180530008510686457e-02,NULL);
INSERT INTO "metric" VALUES(183,6,'foreign_cpu_fraction',-1,NULL,'steps were timed for 0.04 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(184,6,'steal_fraction',-1,NULL,'steps were timed for 0.04 s, and the kernel''s ticks of 10 ms need 0.5 s');
INSERT INTO "metric" VALUES(185,6,'cpu_clock_hz',-1,NULL,'the kernel tells the nominal clock at most, as in most virtual machines');
INSERT INTO "metric" VALUES(186,6,'involuntary_switches_per_s',-1,3.79336073519397700684e+02,NULL);
INSERT INTO "metric" VALUES(187,6,'gpu_utilization_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(188,6,'gpu_memory_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(189,6,'gpu_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(190,6,'gpu_memory_clock_hz',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(191,6,'gpu_temperature_celsius',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(192,6,'power_w',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(193,6,'throttled_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(194,6,'thermal_slowdown_fraction',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(195,6,'foreign_processes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(196,6,'energy_j_per_sample',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(197,6,'latency_p50_s',-1,1.33600299886893481016e-03,NULL);
INSERT INTO "metric" VALUES(198,6,'latency_p90_s',-1,4.18938369984971359372e-02,NULL);
INSERT INTO "metric" VALUES(199,6,'latency_p99_s',-1,1.49868096002319345361e-01,NULL);
INSERT INTO "metric" VALUES(200,6,'stage_embedding_macs',-1,3072.0,NULL);
INSERT INTO "metric" VALUES(201,6,'stage_before_macs',-1,25600.0,NULL);
INSERT INTO "metric" VALUES(202,6,'stage_head_macs',-1,16000.0,NULL);
INSERT INTO "metric" VALUES(203,6,'stage_embedding_time_s',-1,6.27710993285290896892e-04,NULL);
INSERT INTO "metric" VALUES(204,6,'stage_before_time_s',-1,1.6415659993072040379e-03,NULL);
INSERT INTO "metric" VALUES(205,6,'stage_head_time_s',-1,2.27497999730985611677e-04,NULL);
INSERT INTO "metric" VALUES(206,6,'removal_ceiling_ratio',-1,NULL,'the model reduces no tokens, and no block comes after');
INSERT INTO "metric" VALUES(207,6,'stage_embedding_memory_bytes',-1,32768.0,NULL);
INSERT INTO "metric" VALUES(208,6,'stage_before_memory_bytes',-1,4096.0,NULL);
INSERT INTO "metric" VALUES(209,6,'stage_head_memory_bytes',-1,8192.0,NULL);
INSERT INTO "metric" VALUES(210,6,'predicted_memory_bytes',-1,105440.0,NULL);
INSERT INTO "metric" VALUES(211,6,'predicted_memory_growth_bytes',-1,6144.0,NULL);
INSERT INTO "metric" VALUES(212,6,'peak_memory_host_rss_bytes',-1,699490304.0,NULL);
INSERT INTO "metric" VALUES(213,6,'peak_memory_host_growth_bytes',-1,20480.0,NULL);
INSERT INTO "metric" VALUES(214,6,'peak_memory_allocated_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(215,6,'peak_memory_reserved_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(216,6,'peak_memory_device_used_bytes',-1,NULL,'measured on a GPU only');
INSERT INTO "metric" VALUES(217,6,'build_time_s',-1,7.36708454001927748322e-01,NULL);
INSERT INTO "metric" VALUES(218,6,'measure_time_s',-1,4.14511675499670673161e+00,NULL);
INSERT INTO "metric" VALUES(219,6,'step_time_p50_s',-1,6.68668250000337138772e-03,NULL);
INSERT INTO "metric" VALUES(220,6,'throughput_samples_per_s',-1,2.99101983681592741969e+02,NULL);
INSERT INTO "metric" VALUES(221,6,'throughput_per_device_samples_per_s',-1,2.99101983681592741969e+02,NULL);
INSERT INTO "metric" VALUES(222,6,'step_time_p50_low_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(223,6,'step_time_p50_high_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(224,6,'step_time_p90_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(225,6,'step_time_p99_s',-1,NULL,'4 steps are too few');
INSERT INTO "metric" VALUES(226,6,'outlier_steps',-1,0.0,NULL);
INSERT INTO "metric" VALUES(227,6,'mfu',-1,NULL,'no published fp32 peak of AMD EPYC is known, and `tlbench calibrate` has measured none on this machine');
INSERT INTO "metric" VALUES(228,7,'import_time_s',-1,4.09670741399895632639e+00,NULL);
CREATE TABLE run (
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
	CONSTRAINT pk_run PRIMARY KEY (id)
);
INSERT INTO "run" VALUES(1,'tiny','','{"name": "tiny", "description": "", "cases": [{"model": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "profile", "data": "synthetic", "batch_size": 8, "memory_limit_gib": null, "precision": "fp32", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "auto", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 10, "max_steps": 1000, "max_time_s": 10.0}, "fit": {"epochs": 10, "warmup_epochs": 1.0, "target_top1_percent": 90.0}}, {"model": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "infer", "data": "synthetic", "batch_size": 2, "memory_limit_gib": null, "precision": "fp32", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "auto", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 3, "max_steps": 4, "max_time_s": 1.0}, "fit": {"epochs": 10, "warmup_epochs": 1.0, "target_top1_percent": 90.0}}, {"model": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "infer", "data": "synthetic", "batch_size": 2, "memory_limit_gib": null, "precision": "fp16", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "auto", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 3, "max_steps": 4, "max_time_s": 1.0}, "fit": {"epochs": 10, "warmup_epochs": 1.0, "target_top1_percent": 90.0}}, {"model": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64, "global_pool": "avg", "video": null, "token_learner": null, "grid_pool": null, "builder": null}, "mode": "infer", "data": "synthetic", "batch_size": "max", "memory_limit_gib": 0.001, "precision": "fp32", "attention": "auto", "compile": false, "drop_path_rate": 0.0, "gradient_checkpointing": false, "device": "cpu", "parallelism": {"world_size": 1, "zero_stage": 0, "nodes": 1, "offload": "none"}, "stack": "deepspeed", "input": {"kind": "fixed", "workers": 0}, "optimizer": {"learning_rate": 0.001, "weight_decay": 0.05, "gradient_clipping": 1.0, "gradient_accumulation_steps": 1}, "timing": {"target": 0.02, "min_steps": 3, "max_steps": 4, "max_time_s": 1.0}, "fit": {"epochs": 10, "warmup_epochs": 1.0, "target_top1_percent": 90.0}}], "repeats": {"profile": 1, "infer": 2, "train": 5, "fit": 5}, "seed": 0, "trial_timeout_s": 1800.0, "trace": false, "sources": {}}','tiny.yaml','tlbench run tiny.yaml --db tiny.db','finished',7,'2026-11-23 00:27:06.310036','2026-11-23 00:28:21.459574','0.1.1.dev38+g62a53afbb');
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
INSERT INTO "series" VALUES(1,3,'warmup_step_time_s',-1,X'0000F41BE9F6C73F000084ED1208C73F0000A015028DC73F00006009FA04C73F0000202D0884C53F0000001A8BB0653F0000989E1BE0B73F0000D4778A04C73F00009877D48CC73F');
INSERT INTO "series" VALUES(2,3,'step_time_s',-1,X'0000EC92E5A2C63F0000A4DB598EC73F0000905D738BC73F000034716B05C73F');
INSERT INTO "series" VALUES(3,3,'latency_s',-1,X'000000641679403F00000050AD7E3F3F000000F2B8A55E3F00000030D8E5423F00000068169C3F3F0000000C4766443F0000806B1DDD773F00000082001E533F000000302474483F000000C0EE02423F0000000088B1703F00008078AB0C753F000000ED8238643F00000028DE08483F000000A8BA304A3F0000001402FE483F00000024FACB4A3F0000002C08A6493F000000102D38473F000000042173443F000000200AD43F3F000000A846933E3F00000094598C433F0000008C9890413F000000601D693E3F000000088DBD3D3F0000009C8EE7403F00000060E2DD3E3F00000088EFD3473F000000C4D961473F00000054988D443F00000038286B483F0000002422C3473F000000A812EF473F000000682477453F0000000065594E3F000000E0292E483F000000A06160493F000000003F80483F000000A058204A3F0000005CA068443F000000D0FC3C463F000000C0C3C6423F000000184B59423F000000A82BA63F3F0000008845473D3F000000D8DF003D3F00000030D2D63E3F00000068896A413F00000018C3EC3D3F0000006849863D3F000000C813433D3F000000C000B6443F000000D0D41D413F000000006DDB423F000000906DAD3D3F00000008AAC93D3F000000E8AEFF3C3F000000F869B33C3F00000028D5E83C3F0000007D6996733F00000098A9DC433F000000505EB0403F0000003CA614423F000000B85DCE403F00000028D41C3E3F00000048C8153E3F00000087236B743F000000305ADD503F000000A46AAD453F000000944BDE4E3F0000006C31AC433F0000006C9FFE4B3F000000ACB339423F000000948183403F000000481F3F403F000000D00EEB3F3F0000002C2D90413F00000020E09F3E3F000080B074E0723F000000E066FB443F0000002065D73F3F000000481DED3D3F000000783018423F000000D09FC4443F00000094F9FB403F0000806C07BB723F000000A0D041403F000000D8D3AC3E3F000000C091D43D3F00000020FAA1413F00000058F6D23E3F000000D88FDB3C3F000000F825E63C3F00008074A1A8723F00000028A070433F0000002049413E3F000000089E9C3D3F000000D093963D3F000000B063173D3F00000020EF093D3F000000C0D1E63C3F00000070F8903C3F0000008C490D7A3F000000E0B1C0433F000000500520413F000000DC0BF0403F000000EEA5A2813F000000886CCC4D3F00000090E113433F00000034360E413F0000008C4E99423F000000E064AC4A3F0000008846EF453F000000B817B13F3F000000A4EACB403F000000203E8E3E3F00000010F046443F000000FB7633773F000000B8A8B9463F00000058887E453F00000070EC1B403F000000E800C53E3F00000004DE55413F000000B0160C3F3F0000E084CB1B913F000000E0AEC74F3F000000D488B7433F000000903476413F00000084DC48403F00000030C40D3F3F00000050ACAE3E3F0000601254D1953F000000389AAE4D3F0000001016FC433F0000002C48BB403F000000002C31403F0000009BDDCF733F000000B4A32E453F000000A4C65E413F000000488B56453F000000C4B83E433F000000F03F0B3F3F0000006811113E3F000000A8A5AF733F000000181B94423F0000001CE1E5403F000000D841E3413F0000804C14427B3F00000050891D433F000000482F81433F000000800DB3403F0000804624A2793F0000002CB9274B3F0000007C837E423F000000C8A41A413F0000004097C73F3F000000C8CC633F3F000000E4732E423F0000003013B93E3F00000078CE603D3F00000068A4893D3F00000070D14B3D3F000000C8819A3E3F000000A0027E423F000000C037763E3F000000287ECE653F000000608EB7423F00000058D1CE423F00000024E439413F000000394696723F0000007C953A403F000000C0D6463E3F00000048265A3E3F0000004C9D0B493F000000548C33433F000080AD2D16783F0000002815C54F3F000000485606443F000000B8D85C413F000000D47F44403F0000003A07435B3F0000004405E2403F000000C8C0363F3F0000002830C53E3F00000064D695433F0000006A0366743F000000C4A8F24D3F00000060F3D2463F0000004419034B3F00000074D3BC4C3F000000784B624E3F0000005C40DA423F000000C87C1F423F00000014814C433F000000980D2D403F00000010E71F3F3F00000030C4E23E3F000000945403433F00000018C1503E3F');
INSERT INTO "series" VALUES(4,3,'probe_batch_size',-1,X'000000000000F03F000000000000004000000000000030400000000000006040000000000080664000000000004065400000000000E0654000000000008065400000000000606540');
INSERT INTO "series" VALUES(5,3,'probe_memory_bytes',-1,X'000000000000E040000000000000E240000000000000F34000000000000026410000000000A030410000000000602C41000000000040314100000000003030410000000000E03041');
INSERT INTO "series" VALUES(6,4,'warmup_step_time_s',-1,X'00003C663906C23F0000909B1341BE3F00009099D961C03F000018E727A3BB3F0000802EAFBC993F000000FA5A9C533F0000003007F8503F000000B4BD5A513F000000EC6D2E4C3F000000D087024E3F000000BBB6DD623F0000005C37B74F3F000000D6337A513F000000A8A9464E3F000000288C6D4F3F00000078EF8A4B3F0000006834DF4F3F');
INSERT INTO "series" VALUES(7,4,'step_time_s',-1,X'000000FFDAFC6A3F0000004AD235533F000000CA2D10513F0000C049239E843F');
INSERT INTO "series" VALUES(8,4,'latency_s',-1,X'000000A6C910503F0000002C4BC54D3F000000C85E064B3F0000006C05DB753F000000AA05CE503F00000050531A4D3F000000B86C914A3F0000805189B8833F0000004324CE783F00008099675A773F0000009CFEA5523F00000010B6EC513F0000009F90DF733F000000E8C450543F0000007C989E4F3F0000009C66EB4A3F00000014CC014D3F000040C51302843F000000948FD06B3F000000DE47AD513F000000ACC3A14C3F0000009DDD01763F0000003C73584F3F000000F4781D4B3F0000002C2517483F000080689B85773F00000050B9C9553F0000004006A24C3F0000005C66B5493F0000006434AE4C3F000000FCCC5E483F000000F4FD99463F0000006C2DE8473F000000E0B8B54A3F000000A80CC3473F000000F47756453F0000002823A0453F000000C87AA7483F00000028C1C44A3F00000004BA0E493F000000F87089463F000000F0E022453F000000143B10453F000000641D79433F000000D8A216443F0000007C5C26433F00000018E665463F00000068A775443F000000601E353D3F000000A8C8FD3B3F000000C85D383B3F00000080A4053E3F00000058315A3C3F00000010231D3B3F000000409B61423F00000000392C403F0000008468BA423F00000018078B3B3F000000407A323B3F000000A08BFD3A3F000000D870043B3F0000000045DB3A3F00000008CAB53A3F000080BEC857743F000000C0ACB0463F000000287F4A473F000000B45C29403F000000B8D230413F00000030C9693E3F000080F0D0C1743F0000002411DB4C3F000000186EFA423F0000003431B0403F00000088AB013F3F000000388B403D3F000080144B8F733F000000DCA48B453F000000D41746403F0000000008E33D3F0000004025B53D3F000000588D023D3F000000B43E15423F0000805E5B4C7F3F00000026DF2F503F000000C8AB18433F0000006C2F33403F000000AC0119433F000000907F10403F000000282E7B3D3F000000DC8D6C4E3F0000009189B7753F0000000C9035513F0000005C84C24D3F000000A2089F793F00000024E7704F3F000000B854AB4D3F000000A16400753F000000D55BDD733F000000B0BB044D3F000000E8F028493F00000008BBE9453F000000A50394713F0000C06958F1913F000000EA48A0543F00000004A905503F000000539A2D763F0000002AED19513F0000009426CC4E3F000000002B804C3F000000ABDC04923F000000D0173B543F000000F2CF2D503F000000D44474973F000000124D2E533F0000004CB4C07B3F00000054CACB473F000000D89133423F00008059A51F753F000000C0D32E4D3F0000008412664A3F0000206FC84B923F000000D46BE0523F000080E2D8787D3F000000A49D93513F0000003468674F3F00000004B1CC483F00000026BE125C3F000000E42577493F000000983B7A463F000000CF5F3C793F000000E0A91F423F00000038037F3F3F00000020870D3E3F000000F03FDC3C3F0000003C7D464A3F000000101082743F0000004CF8EA423F000000F0E8E93D3F0000001063333C3F000000D0EE6A3B3F00000018A6863B3F0000007864EB3A3F0000009081733B3F0000800BC84A733F00000070CB17493F000000C404C84F3F0000001567357A3F000000509E38543F000000FC1EF9493F000000C05C5E453F0000003088C6453F0000005107BE893F000000541D294D3F0000809072C57F3F00000030CEF9483F000000E41A9C413F000000F0A1DF3F3F00000028DFFA3D3F0000003ED0D2613F00008090E7AC8B3F000000BC98AA473F000000250AAE733F00000000035D453F000000D4A80F403F00000014560C423F0000002883273D3F00000038E7E43B3F000000A8D09A3B3F0000002A6D3C733F000000E4EAF6453F000000583B4D403F000000AF00207B3F00000044767B4C3F0000005C0DFD413F000000884E8D3F3F000000FDDBFD7B3F00000084CB62463F000000F017C2403F000000282E7F3F3F000000F864573D3F0000000CC6A9423F000080477369763F00000010EB3E543F0000001CD7E7533F0000C081D46F8C3F000000D4C292563F000000A063566B3F00000052EC336A3F000000B6E7F7523F00000030DEAD513F000000A75D30763F000000988D384E3F0000008AEE0A513F00004087212D863F0000005CDD564F3F0000004868A3513F0000E0771C04923F0000009AE779513F000000F43CFC483F000060570F02963F');
INSERT INTO "series" VALUES(9,5,'warmup_step_time_s',-1,X'0000F03509EDA33F000000EC59B4593F00000022A693583F000080E84C93773F000000004366593F00002074DB28903F000080FF158F853F0000009ACB525A3F000000F8BFEE7F3F00000058E2D17B3F000000663062593F000080F948B78E3F00000092A9CC5E3F000040050D51933F000080D119BD873F000050574FE4B23F000008D11CB7C33F000088C8205FCA3F0000DC3D5C8CC73F00006C037F11C93F0000A8C2DA03C43F');
INSERT INTO "series" VALUES(10,5,'step_time_s',-1,X'000000AD0D3E623F0000007C10D4593F00008082C13ECC3F0000CEDC5C1FD03F');
INSERT INTO "series" VALUES(11,5,'latency_s',-1,X'0000509DA27EC53F0000B0E224F2C23F0000E8DAF0BEBF3F0000DC02F06CC23F0000C855DFB8BF3F000010910F04C43F0000687267EFC43F');
INSERT INTO "series" VALUES(12,6,'warmup_step_time_s',-1,X'0000A8A54FB1B23F000000201A22563F000000098AB2763F000000E08B315B3F0000807EFFF08B3F000000E85FC0623F000000D5A6DA843F0000001696295A3F0000006C7BBE4D3F0000C06E0033803F0000008A7089773F000000F21CCC513F000000A0EAB94A3F0000403D804F9A3F0000003A5589553F0000406EC5C68C3F0000E0191152AF3F0000000805F3573F000000B6BA71923F0000E0D20A8F9A3F00006016A490A13F0000C02A6A98843F0000006131E0783F0000006CD501523F0000005CC7C0433F000020303B50B33F000000499F56613F00000082EDAC523F0000007A8CDB503F0000401350098D3F0000009A792B583F0000008E1A9C533F000000F8DF0B523F000000D67057503F000000D44EDC503F000000A97E8C923F000000C01C6B563F000000F5D24C833F000000FEA1C9603F000000E08874533F000000488937883F000080052985843F0000009FB963903F0000008DDBDF6E3F000000D23059553F000000B60BB9513F00000091DF038D3F000000A28295533F000080F69E55843F000000D2FB9B573F000040AA9D6B843F000000A656CC593F0000009E9D76523F00004016385F843F0000005EC266553F000000E4D59C503F0000406772E88B3F00000084F2CC583F');
INSERT INTO "series" VALUES(13,6,'step_time_s',-1,X'00002061A938963F0000C06D4D8A883F000000E689C9563F0000009E4655513F');
INSERT INTO "series" VALUES(14,6,'latency_s',-1,X'000000C00F53473F0000803CC4CA763F000040F160EE873F000000628000563F0000008C6A62483F00000068801F463F00002037B006963F000000C80195533F000000B4081B473F000000546682453F0000B01F8247A13F000000C833CA4B3F000000C83E86463F00000038A0B2453F0000C046F94CA93F000000EA0DA1513F000000C0C48D483F0000000CE89E483F000048C3F8EFB63F0000003A691E563F000000482BBF483F000080D91FB69B3F000000F071164E3F0000A0D5CA3D923F00000022AE20563F000000849F6D523F000060EF6E60A73F0000004AB178513F000000A86AE0493F0000F00861E7A33F0000205F6684933F0000407F187C893F0000004C9AE3553F0000A01E11DC913F0000807F8B6C743F000000A433414E3F0000A0CCFAFF963F00000016B113543F000000DC42B04A3F000000E09AA8463F0000A0E71B73A53F00000084F61F563F0000002078364D3F00000056BE9C9A3F000000728414553F000000FCC2B9533F000000081AA34D3F000000DC38C24F3F000000E49AD04E3F000000100787493F000000D880B4513F00000020E06E4B3F000000E09AD04E3F0000802421AD7B3F000000B66BC8533F000000740CF54F3F0000F05D6243AB3F0000001ECFDB563F0000003857E6503F0000C0CF383A923F000000EC7D875B3F000060CB2A20963F0000C08551D68C3F000000EDB7506B3F000000847DAF4F3F0000C0107EE4A33F000000A679E8573F000008805AA7B53F0000503FA352C33F0000F4761737C33F000070BF3C97B93F000048D855A0BC3F0000C05E9368973F000000765BD3603F0000002ACB31553F0000407682E9833F000000D663CF5C3F0000006C7312533F0000D03CECBDA13F0000C0EB1259AC3F00000078321E563F0000C0C793498E3F0000A0D364A0903F00000072A365503F000000FC00E34A3F00005099A14CA33F0000007A15B4513F000000001089483F00000078A92A473F000000903F5D8C3F00000044A95A4E3F000000787FE24E3F00001823DCDBB53F0000004893E1513F000000B48F2C483F0000006877DB443F00006013AB2F923F000000A077E95A3F0000608D1A839E3F0000004ED6A0563F000040C2F06A853F00000056382E553F000000982DE27E3F00000004576F503F00000008EF6B473F00000000E0BD453F000064E05A0FC13F000000CC4F86573F0000003CF515523F00000004822E513F00000018DA084D3F0000001076854C3F000000E8B5B1503F0000004BFA376C3F0000C0F01B5C833F000000D845C2583F000000883387503F00000014F993503F0000C0B96C9FA53F00002028C618933F000000E05AA1533F000000EA61AA513F0000A0D42452983F0000804BEFDB7B3F000000E41C8E513F000000449525503F000060938E22C33F0000008265B15C3F0000007AD6F6553F000000C85F1B503F0000009CA6F04C3F00000034CBE74A3F000000584AE3483F0000E0CF044B9E3F000000DA8D4B503F000000400A8F473F0000004CD18F4B3F0000C00B4FB28C3F000000665F5E523F0000807D3663863F00001086805DA43F');
CREATE TABLE tlbench_revision (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT tlbench_revision_pkc PRIMARY KEY (version_num)
);
INSERT INTO "tlbench_revision" VALUES('0002');
CREATE TABLE "trial" (
	id INTEGER NOT NULL, 
	run_id INTEGER NOT NULL, 
	case_id INTEGER NOT NULL, 
	machine_id INTEGER, 
	model TEXT NOT NULL, 
	given_name TEXT, 
	repeat INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	seed BIGINT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	reason TEXT, 
	traceback TEXT, 
	started_at DATETIME NOT NULL, 
	wall_time_s DOUBLE NOT NULL, 
	command TEXT NOT NULL, 
	notes JSON NOT NULL, 
	validity VARCHAR(16), 
	doubts JSON NOT NULL, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_machine_id_machine FOREIGN KEY(machine_id) REFERENCES machine (id), 
	CONSTRAINT fk_trial_case_id_experiment_case FOREIGN KEY(case_id) REFERENCES experiment_case (id), 
	CONSTRAINT uq_trial_run_id_position UNIQUE (run_id, position), 
	CONSTRAINT fk_trial_run_id_run FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
);
INSERT INTO "trial" VALUES(1,1,1,1,'mini','mini',0,0,0,'ok',NULL,NULL,'2026-11-23 00:27:06.320330',5.61830551500315777957e+00,'printf %s ''{"name": "repeat", "models": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "profile"}'' | tlbench run -','{}',NULL,'[]');
INSERT INTO "trial" VALUES(2,1,2,1,'mini','mini',0,1,0,'skipped','precision fp16 needs a GPU; this is a CPU','Traceback (most recent call last):
  File "/venv/tlbench/trial.py", line 57, in run_rank
    _measure(trial, rank, findings)
  File "/venv/tlbench/trial.py", line 96, in _measure
    _prepare(case, seed, rank, device)
  File "/venv/tlbench/trial.py", line 119, in _prepare
    _check_support(case, device)
  File "/venv/tlbench/trial.py", line 134, in _check_support
    raise UnsupportedError(reason)
tlbench.errors.UnsupportedError: precision fp16 needs a GPU; this is a CPU
','2026-11-23 00:27:11.969246',2.28007970400358317419e+00,'printf %s ''{"name": "repeat", "models": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "infer", "batch_size": 2, "precision": "fp16", "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}'' | tlbench run -','{}',NULL,'[]');
INSERT INTO "trial" VALUES(3,1,3,1,'mini','mini',0,2,0,'ok',NULL,NULL,'2026-11-23 00:27:14.260407',38.9078424870022,'printf %s ''{"name": "repeat", "models": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "infer", "batch_size": "max", "memory_limit_gib": 0.001, "device": "cpu", "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}'' | tlbench run -','{"stopped_by": "max_steps", "steady_state": "flat", "warmup": "out of time after 9 steps", "batch": "found by 9 probes"}','invalid','["other processes took 49.7 % of the cores'' time", "4 steps are too few for an interval of their median"]');
INSERT INTO "trial" VALUES(4,1,4,1,'mini','mini',0,3,0,'ok',NULL,NULL,'2026-11-23 00:27:53.181313',5.7147257260003243573e+00,'printf %s ''{"name": "repeat", "models": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "repeats": 1, "seed": 0, "trial_timeout_s": 1800.0, "mode": "infer", "batch_size": 2, "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}'' | tlbench run -','{"stopped_by": "max_steps", "steady_state": "flat", "warmup": "settled after 17 steps"}','suspect','["4 steps are too few for an interval of their median"]');
INSERT INTO "trial" VALUES(5,1,3,1,'mini','mini',1,4,1,'ok',NULL,NULL,'2026-11-23 00:27:58.911022',8.24870376499893609434e+00,'printf %s ''{"name": "repeat", "models": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "repeats": 1, "seed": 1, "trial_timeout_s": 1800.0, "mode": "infer", "batch_size": "max", "memory_limit_gib": 0.001, "device": "cpu", "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}'' | tlbench run -','{"stopped_by": "max_steps", "steady_state": "flat", "warmup": "did not settle in 21 steps", "batch": "found by 9 probes"}','suspect','["the warm-up did not settle in 21 steps", "4 steps are too few for an interval of their median"]');
INSERT INTO "trial" VALUES(6,1,4,1,'mini','mini',1,5,1,'ok',NULL,NULL,'2026-11-23 00:28:07.186660',8.49453863300004741176e+00,'printf %s ''{"name": "repeat", "models": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "repeats": 1, "seed": 1, "trial_timeout_s": 1800.0, "mode": "infer", "batch_size": 2, "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}'' | tlbench run -','{"stopped_by": "max_steps", "steady_state": "flat", "warmup": "settled after 58 steps"}','suspect','["4 steps are too few for an interval of their median"]');
INSERT INTO "trial" VALUES(7,1,2,1,'mini','mini',1,6,1,'skipped','precision fp16 needs a GPU; this is a CPU','Traceback (most recent call last):
  File "/venv/tlbench/trial.py", line 57, in run_rank
    _measure(trial, rank, findings)
  File "/venv/tlbench/trial.py", line 96, in _measure
    _prepare(case, seed, rank, device)
  File "/venv/tlbench/trial.py", line 119, in _prepare
    _check_support(case, device)
  File "/venv/tlbench/trial.py", line 134, in _check_support
    raise UnsupportedError(reason)
tlbench.errors.UnsupportedError: precision fp16 needs a GPU; this is a CPU
','2026-11-23 00:28:15.702202',5.73529126700304914265e+00,'printf %s ''{"name": "repeat", "models": {"name": "mini", "patch_size": 4, "image_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 64}, "repeats": 1, "seed": 1, "trial_timeout_s": 1800.0, "mode": "infer", "batch_size": 2, "precision": "fp16", "timing": {"min_steps": 3, "max_steps": 4, "max_time_s": 1.0}}'' | tlbench run -','{}',NULL,'[]');
CREATE INDEX ix_machine_cpu_model ON machine (cpu_model);
CREATE INDEX ix_machine_gpu_name ON machine (gpu_name);
CREATE INDEX ix_run_started_at ON run (started_at);
CREATE INDEX ix_metric_name_value ON metric (name, value);
CREATE INDEX ix_trial_model ON trial (model);
CREATE INDEX ix_trial_machine_id ON trial (machine_id);
CREATE INDEX ix_trial_case_id ON trial (case_id);
CREATE INDEX ix_trial_started_at ON trial (started_at);
COMMIT;
