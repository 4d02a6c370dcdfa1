# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='cmp_int4_block_ok', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools',
 expect='', compress={'method': 'linear', 'mode': 'linear_symmetric', 'dtype': 'int8', 'granularity': 'per_block', 'block_size': 32, 'weight_threshold': 64}, target='iOS18')
def build(): torch.manual_seed(0); return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)).eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 64),)
