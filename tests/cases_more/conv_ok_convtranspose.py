# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_ok_convtranspose', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/pull/2711',
 expect='')
def build(): torch.manual_seed(0); return nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1).eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 4, 6, 6),)
